"""Runs that start from a published model's directory."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli, models
from jaxrl_surrogate.models import hf

CONFIG = "configs/quickstart.yaml"
SHAPE = models.presets.get(
    "nano", vocab_size=104, embed_dim=16, head_dim=4, mlp_dim=16, attention_bias=True,
    qk_norm=False,
)  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """A directory of bfloat16 numbers."""
    params = models.init_params(SHAPE, jax.random.key(7))
    hf.save(tmp_path / "published", SHAPE, params, dtype="bfloat16")
    return tmp_path / "published"


def arguments(tmp_path, published, *more):
    return [
        f"--run_dir={tmp_path / 'run'}", *SMALL, f"--model.init_from={published}",
        "--model.overrides={}", "--sft.steps=0", "--mesh.tensor=2", *more,
    ]  # fmt: skip


def test_its_shape_and_numbers_are_those_of_the_run(tmp_path, published):
    """Whatever preset is named, and on the run's mesh."""
    given = arguments(tmp_path, published, "--model.compute_dtype=bfloat16")
    run = assembly.build_run(cli.load_config(Path(CONFIG), given))
    assert run.model == dataclasses.replace(SHAPE, compute_dtype="bfloat16")
    params = run.init_params(pytest.fail)
    _, stored = hf.load(published)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert len(kernel.sharding.device_set) == run.mesh.size == 8
    assert kernel.sharding.shard_shape(kernel.shape)[-1] == SHAPE.mlp_dim // 2
    for leaf, expected in zip(
        jax.tree.leaves(params), jax.tree.leaves(stored), strict=True
    ):
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, expected.astype(np.float32))


@pytest.mark.slow
@pytest.mark.ci
def test_it_is_trained(tmp_path, published, capsys):
    given = arguments(tmp_path, published, "--train.steps=1", "--eval.prompts=0")
    assert cli.main(["train", CONFIG, *given]) == 0
    assert "finished after step 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--model.overrides={num_layers: 3}", "has its own shape"),
        ("--task.tokenizer=byte", "at least the 25"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path, published, more, said):
    given = arguments(tmp_path, published, more)
    with pytest.raises(ValueError, match=said):
        assembly.build_run(cli.load_config(Path(CONFIG), given))


def test_a_model_that_we_do_not_have_is_refused_before_anything_is_made(
    tmp_path, published, capsys
):
    text = (published / "config.json").read_text()
    (published / "config.json").write_text(text.replace('"qwen2"', '"mamba"'))
    assert cli.main(["train", CONFIG, *arguments(tmp_path, published)]) == 2
    assert "model_type='mamba'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
