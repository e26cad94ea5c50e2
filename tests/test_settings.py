"""The machinery of settings, on a small tree of its own."""

import dataclasses
from typing import Annotated, Literal

import pytest

from jaxrl_surrogate import settings, yaml_text
from jaxrl_surrogate.errors import FieldError, FieldErrors


@dataclasses.dataclass(frozen=True)
class Inner:
    """How fast it goes."""

    rate: Annotated[float, "a rate"] = 0.5
    count: Annotated[int, "a count"] = 2
    mode: Annotated[Literal["fast", "slow"], "a choice"] = "fast"

    def __post_init__(self):
        if self.rate < 0:
            raise FieldError("rate", self.rate, "0 or more", "take more")


@dataclasses.dataclass(frozen=True)
class Root:
    name: Annotated[str, "a name"] = "none"
    flag: Annotated[bool, "a flag"] = False
    path: Annotated[str | None, "perhaps a path"] = None
    sizes: Annotated[tuple[int, ...], "sizes"] = (1, 2)
    options: Annotated[dict[str, object], "a bag"] = dataclasses.field(
        default_factory=dict
    )
    inner: Inner = dataclasses.field(default_factory=Inner)
    other: Inner = dataclasses.field(default_factory=lambda: Inner(rate=7.0))


def _load(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return settings.load(Root, path, overrides)


def _faults(tmp_path, text, *overrides):
    with pytest.raises(FieldErrors) as caught:
        _load(tmp_path, text, *overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "overrides", "field", "expected"),
    [
        ("inner: {rate: 1e-4}", [], "inner.rate", 1e-4),
        ("inner: {rate: '1e-4'}", [], "inner.rate", 1e-4),
        ("inner: {rate: 3}", [], "inner.rate", 3.0),
        ("", ["--inner.rate=-2e-3", "--inner.rate=.inf"], "inner.rate", float("inf")),
        ("", ["--inner.count=1e3"], "inner.count", 1000),
        ("", ["--inner.count", "5"], "inner.count", 5),
        ("", ["--inner.count", "-5"], "inner.count", -5),
        ("", ["inner.count=6"], "inner.count", 6),
        ("inner: {count: 9007199254740993}", [], "inner.count", 2**53 + 1),
        ("", ["--inner.mode=slow"], "inner.mode", "slow"),
        ("", ["--flag=true"], "flag", True),
        ("flag: on", [], "flag", True),
        # A word of the command line for text is that text.
        ("", ["--name=010"], "name", "010"),
        ("", ["--name=on"], "name", "on"),
        ("", ["--name=a: {b"], "name", "a: {b"),
        ("", ["--name=x=y"], "name", "x=y"),
        ("", ["--name="], "name", ""),
        ("", ["--path=null"], "path", None),
        ("", ["--path=1e3"], "path", "1e3"),
        ("", ["--sizes=[3, 4]"], "sizes", (3, 4)),
        ("", ["--options.a=3"], "options", {"a": 3}),
        ("options: {a: 1e-4, b: '7', c: null}", [], "options",
         {"a": 1e-4, "b": "7", "c": None}),
        ("", ["--options.x=[1,[2]]"], "options", {"x": [1, [2]]}),
        ("options: {a: {b: [1, {c: 2.5}]}}", [], "options",
         {"a": {"b": [1, {"c": 2.5}]}}),
        ("options: {a: {b: 1, c: 2}}", ["--options.a.c=[{d: null}]"], "options",
         {"a": {"b": 1, "c": [{"d": None}]}}),
        ("options: {a: 1}", ["--options.b=yes"], "options", {"a": 1, "b": True}),
        ("options: {a: 1}", ["--options={b: 2}"], "options", {"b": 2}),
        ("inner:\n  # all of it is a comment\n", [], "inner.count", 2),
        # What a section's own default says holds for the fields that are left out.
        ("other: {count: 3}", [], "other.rate", 7.0),
    ],
)  # fmt: skip
def test_values_are_typed(tmp_path, text, overrides, field, expected):
    value = _load(tmp_path, text, *overrides)
    for name in field.split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("inner: {cuont: 4}", [], ["inner.cuont: unknown", "mean inner.count?"]),
        ("mode: fast", [], ["mode: unknown", "inner.mode or other.mode?"]),
        ("xyzzy: 1", [], ["xyzzy: unknown", "expected one of name, flag"]),
        ("inner: {count: many}", [], ["inner.count='many'", "expected integer"]),
        ("inner: {count: 1.5}", [], ["inner.count=1.5", "expected integer"]),
        ("inner: {count: true}", [], ["inner.count=True", "expected integer"]),
        ("inner: {count: .inf}", [], ["inner.count=inf", "expected integer"]),
        ("inner: {rate: .nan}", [], ["inner.rate=nan", "expected number"]),
        ("inner: {rate: [1]}", [], ["inner.rate=[1]", "expected number"]),
        ("inner: {rate: -1}", [], ["inner.rate=-1.0: expected 0 or more"]),
        ("inner: {mode: fastt}", [], ["inner.mode='fastt'", "fast | slow", "fast?"]),
        ("flag: 1", [], ["flag=1", "true or false"]),
        ("name: 010", [], ["name=8", "expected text; put it in quotes"]),
        ("name: no", [], ["name=False", "expected text"]),
        ("sizes: [1, x]", [], ["sizes[1]='x'", "expected integer"]),
        ("sizes: 3", [], ["sizes=3", "list, each integer"]),
        ("options: {a: 2020-01-01}", [], ["options=", "a plain value"]),
        ("options: [1]", [], ["options=[1]", "each a name with a plain value"]),
        ("options: 3", [], ["options=3", "options"]),
        ("inner: 3", [], ["inner: expected a section, got 3"]),
        ("- 1", [], ["c.yaml: expected sections"]),
        ("a: {", [], ["c.yaml", "not YAML in line"]),
        ("name: a\nname: b", [], ["c.yaml", "name is given twice", "line 2"]),
        ("extends: c.yaml", [], ["c.yaml", "extends itself"]),
        ("extends: none.yaml", [], ["none.yaml", "no such file"]),
        ("", ["--inner={rate: 1}"], ["inner: is a section", "--inner.field=value"]),
        ("", ["--name.first=a"], ["name={'first': 'a'}", "expected text"]),
        ("", ["--flag"], ["--flag: expected --section.field=value"]),
        ("", ["stray"], ["stray: expected --section.field=value"]),
        ("", ["--inner.rate=[1"], ["inner.rate='[1'", "not YAML"]),
    ],
)
def test_what_is_refused_is_named(tmp_path, text, overrides, words):
    (line,) = _faults(tmp_path, text, *overrides)
    assert all(word in line for word in words), line


def test_errors_are_values_with_fields(tmp_path):
    with pytest.raises(FieldErrors) as caught:
        _load(tmp_path, "inner: {rate: -1}\nother: {cuont: 4}\n", "--sizes=[1, x, y]")
    found = {error.field: error for error in caught.value.errors}
    assert list(found) == ["inner.rate", "other.cuont", "sizes[1]", "sizes[2]"]
    rate, name, size = (found[f] for f in ("inner.rate", "other.cuont", "sizes[1]"))
    assert (rate.value, rate.expected, rate.remedy) == (-1.0, "0 or more", "take more")
    assert (name.problem, name.remedy) == ("unknown field", "did you mean other.count?")
    assert (size.value, size.expected) == ("x", "integer")


def test_all_faults_are_reported_together(tmp_path):
    lines = _faults(
        tmp_path,
        "nam: x\ninner: {rate: -1}\nother: {rate: -2, mode: x}\n",
        "--flag=maybe",
        "--odd",
    )
    assert [line.split(":")[0] for line in lines] == [
        "--odd",
        "nam",
        "inner.rate=-1.0",
        "other.mode='x'",
        "flag='maybe'",
    ]


def test_extends_merges_sections_and_options(tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "top.yaml").write_text("name: top\ninner: {rate: 3}\n")
    (tmp_path / "mid.yaml").write_text(
        "extends: up/top.yaml\ninner: {count: 4}\noptions: {a: 1}\n"
    )
    root = _load(tmp_path, "extends: mid.yaml\noptions: {b: 2}\n")
    assert (root.name, root.inner) == ("top", Inner(rate=3.0, count=4))
    assert root.options == {"a": 1, "b": 2}
    assert _load(tmp_path, "extends: mid.yaml\noptions: null\n").options == {}


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "quick.yaml").write_text("")
    with pytest.raises(FieldErrors, match=r"did you mean .*quick\.yaml\?"):
        settings.load(Root, tmp_path / "quik.yaml")


def test_defaults_lie_below_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    for text, expected in (("", "given"), ("name: mine", "mine")):
        path.write_text(text)
        assert settings.load(Root, path, defaults={"name": "given"}).name == expected


@pytest.mark.parametrize(
    "root",
    [
        Root(),
        Root("010", True, "null", (7,), {"a": "1e-4", "b": 1e-5}, Inner(1e-7, 3)),
        Root(name="é\n: #", options={"a": None, "b": True}),
        Root(options={"a": [1, [2.5, {"b": "010"}]], "c": {"d": []}}),
    ],
)
def test_round_trip(tmp_path, root):
    assert settings.from_dict(Root, settings.to_dict(root)) == root
    assert _load(tmp_path, settings.to_yaml(root)) == root


def test_difference():
    old = Root(options={"a": 1, "b": 2})
    new = Root(options={"b": 3, "c": 4}, inner=Inner(count=5))
    assert sorted(settings.difference(old, new)) == [
        ("inner.count", 2, 5),
        ("options.a", 1, None),
        ("options.b", 2, 3),
        ("options.c", None, 4),
    ]
    assert settings.difference(old, old) == []


def test_updated_starts_from_what_it_is_given():
    assert settings.updated(Inner(rate=3.0), {"count": 9}) == Inner(3.0, 9)
    with pytest.raises(FieldErrors, match=r"at\.here\.rte: .*at\.here\.rate"):
        settings.updated(Inner(), {"rte": 1}, "at.here")


def test_help_lists_path_help_type_and_default():
    def lines(section=""):
        text = settings.help_text(Root, section)
        return [" ".join(line.split()) for line in text.splitlines()]

    assert lines("inner")[2] == "--inner.mode a choice (fast | slow, default fast)"
    assert "--other.rate a rate (number, default 7.0)" in lines("other")
    assert "--path perhaps a path (text or null, default null)" in lines()
    assert lines()[-2:] == [
        "--inner.* How fast it goes.",
        "--other.* How fast it goes.",
    ]
    assert len(lines()) == 7
    with pytest.raises(FieldErrors, match=r"--help='iner': .*did you mean inner\?"):
        lines("iner")


def test_yaml_text_reads_numbers_like_json():
    read = yaml_text.load("[1e-4, -1E5, 1.e3, .5e-2, '1e-4', e5, 1e, 0x10]")
    assert read == [1e-4, -1e5, 1e3, 5e-3, "1e-4", "e5", "1e", 16]
    with pytest.raises(ValueError, match="not YAML"):
        yaml_text.load("\x00")
