"""The configuration of a run, and what the rooms say to it."""

from pathlib import Path

import numpy as np
import pytest

from jaxrl_surrogate import assembly, objectives, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def _config(tmp_path, *overrides, text=""):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return settings.load(TrainConfig, path, [f"--run_dir={tmp_path}/run", *overrides])


def _refusal(function, *arguments):
    with pytest.raises(FieldErrors) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_that_are_shipped_are_read(path, tmp_path):
    config = settings.load(TrainConfig, path)
    assert settings.from_dict(TrainConfig, settings.to_dict(config)) == config


def test_every_field_has_a_help_text():
    for path, _, _, text in settings.fields(TrainConfig):
        assert text, path


def test_a_partly_given_warm_start_keeps_its_learning_rate(tmp_path):
    config = _config(tmp_path, "--sft.optimizer.warmup_steps=3")
    assert config.sft.optimizer.learning_rate == 1e-3
    assert config.sft.optimizer.warmup_steps == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--seed=-1"], ["seed=-1", "2**32"]),
        (["--name="], ["name=''", "expected a name below"]),
        (["--rollout.group_size=0"], ["rollout.group_size=0", "at least 1"]),
        (["--eval.samples=0"], ["eval.samples=0", "at least 1"]),
        (["--eval.temperature=-1"], ["eval.temperature=-1.0", "at least 0"]),
        (["--task.verify_timeout_s=0"], ["task.verify_timeout_s=0.0", "more than 0"]),
        (["--rollout.sampling.top_p=2"], ["rollout.sampling.top_p=2.0"]),
        (["--optimizer.learning_rate=-1"], ["optimizer.learning_rate=-1.0"]),
        (["--loss.clip_low=2"], ["loss.clip_low=2.0"]),
        (["--mesh.fsdp=0"], ["mesh.fsdp=0"]),
        (["--train.minibatches=3"], ["train.minibatches=3", "prompts_per_step=16"]),
        (
            ["--train.minibatches=2", "--train.microbatch_prompts=3"],
            ["train.microbatch_prompts=3", "8 prompts", "train.minibatches=2"],
        ),
    ],
)
def test_values_that_do_not_fit_are_named(tmp_path, overrides, words):
    (line,) = _refusal(_config, tmp_path, *overrides).splitlines()
    assert all(word in line for word in words), line


def test_sections_are_all_checked_at_once(tmp_path):
    faults = _refusal(
        _config, tmp_path, "--train.steps=-1", "--train.epochs=0", "--log.every=x"
    )
    assert len(faults.splitlines()) == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--objective.name=rlo"], ["objective.name='rlo'", "rloo?"]),
        (["--objective.name=arcsine"], ["objective.name='arcsine'", "arcsin?"]),
        (
            ["--objective.name=rloo", "--objective.kind=surrogate"],
            ["objective.name='rloo'", "identity"],
        ),
        (["--objective.options.k=2"], ["objective.options.k=2", "rloo takes no"]),
        (["--objective.name=pass_at_k"], ["objective.options", "'k'"]),
        (
            ["--objective.name=pass_at_k", "--objective.options.k=hi"],
            ["objective.options.k='hi'"],
        ),
        (
            ["--objective.name=log", "--objective.method=x"],
            ["objective.method", "'x'", "kantorovich"],
        ),
        (
            ["--objective.name=log", "--objective.baseline=x"],
            ["objective.baseline", "'x'", "leave_one_out"],
        ),
        (["--rollout.group_size=1"], ["rollout.group_size=1", "baseline"]),
        (["--task.name=arithmetics"], ["task.name", "arithmetic"]),
        (["--task.options.max_digit=2"], ["task.options.max_digit", "max_digits"]),
        (["--task.options.max_digits=x"], ["task.options.max_digits='x'"]),
        (["--task.tokenizer=asci"], ["task.tokenizer='asci'", "ascii"]),
        (["--task.tokenizer=bpe:3"], ["task.tokenizer='bpe:3'", "SIZE"]),
        (["--model.preset=tinny"], ["model.preset='tinny'", "tiny"]),
        (
            ["--model.overrides.num_layer=2"],
            ["model.overrides.num_layer", "model.overrides.num_layers?"],
        ),
        (
            ["--model.overrides.num_layers=x"],
            ["model.overrides.num_layers='x'", "integer"],
        ),
        (
            ["--model.overrides.vocab_size=3"],
            ["model.overrides.vocab_size=3", "at least"],
        ),
        (["--model.init_from=/none"], ["model.init_from='/none'", "config.yaml"]),
        (["--mesh.tensor=3"], ["mesh.", "8 devices"]),
        (
            ["--rollout.max_prompt_length=2"],
            ["rollout.max_prompt_length=2", "which needs 4"],
        ),
        # What nothing reads is not taken in silence.
        (["--objective.method=x"], ["objective.method='x'", "rloo", "kind=surrogate"]),
        (["--objective.baseline=none"], ["objective.baseline='none'", "rloo"]),
        (["--objective.prior=[1, 2]"], ["objective.prior=(1.0, 2.0)", "rloo"]),
        (
            ["--objective.weight_options={norm: l2}"],
            ["objective.weight_options={'norm': 'l2'}", "rloo"],
        ),
        (
            ["--objective.schedule.to=grpo", "--objective.method=taylor"],
            ["objective.method='taylor'", "rloo and grpo"],
        ),
        (["--objective.name=verl:grpo", "--objective.method=x"], ["method='x'"]),
        (["--objective.schedule.end=4"], ["objective.schedule.end=4", "schedule.to"]),
        (
            ["--objective.schedule.options={k: 2}"],
            ["objective.schedule.options.k=2", "schedule.to"],
        ),
        (
            ["--checkpoint.best_metric=nonsense", "--checkpoint.keep_best=1"],
            ["checkpoint.best_metric='nonsense'", "eval/pass@1", "reward"],
        ),
        (
            ["--checkpoint.best_metric=eval/pass@3", "--checkpoint.keep_best=1"],
            ["checkpoint.best_metric='eval/pass@3'", "did you mean eval/pass@"],
        ),
        (
            ["--checkpoint.best_metric=loss"],
            ["checkpoint.best_metric='loss'", "keep_best"],
        ),
        (
            ["--checkpoint.keep_best=1", "--eval.prompts=0"],
            ["checkpoint.best_metric='eval/pass@1'", "eval.prompts=0"],
        ),
        (
            ["--checkpoint.keep_best=1", "--eval.every=0"],
            ["checkpoint.best_metric='eval/pass@1'", "eval.every=0", "last step"],
        ),
        # An endless source, of which only some problems are too long.
        (
            ["--task.options.max_digits=9", "--rollout.max_prompt_length=8"],
            ["rollout.max_prompt_length=8", "too short for the prompt '"],
        ),
        (
            ["--sft.steps=1", "--rollout.max_completion_length=1"],
            ["rollout.max_completion_length=1", "too short for"],
        ),
        (
            ["--rollout.prompts_per_step=4"],
            ["prompts", "=4", "multiple of 8", "mesh.data"],
        ),
    ],
)
def test_rooms_refuse_by_name(tmp_path, overrides, words):
    config = _config(tmp_path, *overrides)
    (line,) = _refusal(assembly.build_run, config).splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_rooms_refuse_together(tmp_path):
    config = _config(
        tmp_path, "--task.name=x", "--objective.name=y", "--model.preset=z"
    )
    starts = {
        line.partition("=")[0]
        for line in _refusal(assembly.build_run, config).splitlines()
    }
    assert starts == {"task.name", "objective.name", "model.preset"}


@pytest.mark.parametrize("name", ["rloo", "pass_at_k"])
def test_an_advantage_function_comes_before_a_surrogate_of_the_name(tmp_path, name):
    options = ["--objective.options.k=2"] * (name == "pass_at_k")
    config = _config(tmp_path, f"--objective.name={name}", *options)
    method = objectives.advantages.get(name, **config.objective.options)
    expected = objectives.table_family(method.table, config.rollout.group_size)
    found = assembly.build_objective(config)(1)
    np.testing.assert_array_equal(found.correct, expected.correct)
    np.testing.assert_array_equal(found.incorrect, expected.incorrect)


def test_stop_texts_are_tokens_beside_the_end_token(tmp_path):
    text = "model: {preset: nano}\ntask: {tokenizer: byte}\n"
    run = assembly.build_run(
        _config(tmp_path, '--rollout.stop=["\\n", "."]', text=text)
    )
    assert run.collector.stop_tokens == (256, 10, 46)
    assert run.evaluator.stop_tokens == (256, 10, 46)
    wrong = _config(tmp_path, "--rollout.stop=['ab', '', '.']", text=text)
    lines = _refusal(assembly.build_run, wrong).splitlines()
    assert len(lines) == 2
    assert "rollout.stop='ab'" in lines[0] and "2 tokens" in lines[0]


def test_options_of_method_and_baseline_reach_the_weights(tmp_path):
    words = ["--objective.name=log", "--objective.method=projection"]
    words += ["--objective.baseline=min_variance"]
    given = _config(
        tmp_path,
        *words,
        "--objective.prior=[1, 3]",
        "--objective.weight_options={norm: l2}",
    )
    found = assembly.build_objective(given)(1).table()
    expected = objectives.from_surrogate(
        objectives.surrogates.get("log"),
        8,
        method="projection",
        baseline="min_variance",
        prior=(1.0, 3.0),
        norm="l2",
    )
    np.testing.assert_allclose(found.correct, expected.correct)
    wrong = _config(tmp_path, *words, "--objective.weight_options={nrm: l2}")
    assert "norm" in _refusal(assembly.build_objective, wrong)
    wrong = _config(tmp_path, "--objective.name=log", "--objective.prior=[1, 3]")
    assert "prior" in _refusal(assembly.build_objective, wrong)


def test_a_schedule_mixes_objectives_by_step(tmp_path):
    words = ["--objective.name=log", "--objective.schedule.to=rloo", "--train.steps=11"]
    schedule = assembly.build_objective(_config(tmp_path, *words))
    log = objectives.from_surrogate(objectives.surrogates.get("log"), 8)
    rloo = objectives.advantages.table("rloo", 8)
    for step, share in ((1, 0.0), (6, 0.5), (11, 1.0), (20, 1.0)):
        found = schedule(step).table()
        expected = (1 - share) * log + share * rloo
        np.testing.assert_allclose(found.correct, expected.correct)
        np.testing.assert_allclose(found.incorrect, expected.incorrect)
    jump = [*words, "--objective.schedule.shape=hold", "--objective.schedule.end=4"]
    schedule = assembly.build_objective(_config(tmp_path, *jump))
    np.testing.assert_array_equal(schedule(3).table().correct, log.correct)
    np.testing.assert_array_equal(schedule(4).table().correct, rloo.correct)
    wrong = _config(tmp_path, *words, "--objective.schedule.begin=11")
    assert "objective.schedule.begin=11" in _refusal(assembly.build_objective, wrong)
    wrong = _config(tmp_path, *words[:1], "--objective.schedule.to=rlo")
    assert "objective.schedule.to='rlo'" in _refusal(assembly.build_objective, wrong)


def test_a_surrogate_becomes_weights(tmp_path):
    config = _config(
        tmp_path,
        "--objective.name=pass_at_k",
        "--objective.kind=surrogate",
        "--objective.options.k=2",
    )
    surrogate = objectives.surrogates.get("pass_at_k", k=2)
    expected = objectives.table_family(
        lambda size: objectives.from_surrogate(surrogate, size),
        config.rollout.group_size,
    )
    found = assembly.build_objective(config)(1)
    np.testing.assert_array_equal(found.correct, expected.correct)


def test_a_run_directory_keeps_what_its_numbers_mean(tmp_path):
    config = _config(tmp_path, "--task.options.max_digits=3")
    directory = assembly.open_directory(config)
    assert settings.load(TrainConfig, directory / "config.yaml") == config
    again = _config(tmp_path, "--task.options.max_digits=3", "--log.every=7")
    assembly.open_directory(again)  # stored when the run has taken it up, not before
    assert settings.load(TrainConfig, directory / "config.yaml") == config
    assembly.store_config(again)
    refused = _refusal(assembly.open_directory, _config(tmp_path, "--seed=5"))
    assert "seed=5" in refused and "task.options.max_digits" in refused
    stored = settings.load(TrainConfig, directory / "config.yaml")
    assert (stored.seed, stored.log.every) == (0, 7)


def test_a_name_is_put_into_the_directory_and_nothing_else(tmp_path):
    config = _config(tmp_path, "--name=n", "--run_dir=a/{name}/{x}")
    assert assembly.run_directory(config) == Path("a/n/{x}")
