"""Names and options of tasks: listed, checked, suggested."""

import pytest

from jaxrl_surrogate import tasks


def test_names():
    assert {"arithmetic", "countdown", "gsm8k"} <= set(tasks.names())
    with pytest.raises(ValueError, match=r"^name='arithmetik'.*mean arithmetic\?"):
        tasks.get("arithmetik")


@pytest.mark.parametrize("name", tasks.names())
def test_every_option_is_described(name):
    options = tasks.options(name)
    assert options
    for option in options.values():
        assert option.help and option.type_name != "any"
    if name != "gsm8k":
        task = tasks.get(
            name, **{key: option.default for key, option in options.items()}
        )
        assert task.name == name
    assert tasks.task_options(name) == {
        key: (option.default, option.help) for key, option in options.items()
    }


def test_option_types():
    options = tasks.options("arithmetic")
    assert options["max_digits"].type_name == "integer"
    assert options["form"].type_name == "symbols | spaced | words | mixed"
    assert options["max_digits"].default == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_digit": 3},
            r"^options\.max_digit=3: arithmetic has no .*mean max_digits\?",
        ),
        ({"max_digits": "3"}, r"^options\.max_digits='3': expected integer"),
        ({"max_digits": True}, r"^options\.max_digits=True: expected integer"),
        ({"max_digits": 2.5}, r"^options\.max_digits=2\.5: expected integer"),
        ({"max_digits": float("inf")}, r"^options\.max_digits=inf: expected integer"),
        ({"max_digits": float("nan")}, r"^options\.max_digits=nan: expected integer"),
        ({"max_digits": None}, r"^options\.max_digits=None: expected integer"),
        ({"operations": 1}, r"^options\.operations=1: expected text"),
        ({"form": "word"}, r"^options\.form='word': expected symbols .*mean words\?"),
        ({"form": []}, r"^options\.form=\[\]: expected symbols"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.get("arithmetic", **options)


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError, match=r"max_digit=[\s\S]*min_digits='1'"):
        tasks.get("arithmetic", max_digit=3, min_digits="1")


def test_whole_numbers_of_the_other_type_are_taken():
    assert tasks.get("arithmetic", max_digits=3.0, num_test=4).test
