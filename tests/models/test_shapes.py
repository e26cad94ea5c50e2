"""Parameter trees of all presets, by shapes alone, and the size of programs."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, rollout

# Parameters of the published checkpoints, a tied head counted once.
PUBLISHED = {
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen2.5-0.5b": 494_032_768,
    "llama3-8b": 8_030_261_248,
}
LOGICAL = {"layers", "vocab", "embed", "heads", "kv_heads", "mlp", "head_dim"}
LOGICAL |= {"experts", None}


@pytest.mark.parametrize("name", models.presets.names())
def test_parameters_are_counted_and_name_their_axes(name):
    config = models.presets.get(name)
    params, axes = models.abstract_params(config), models.logical_axes(config)
    leaves = jax.tree.leaves_with_path(params)
    named = jax.tree.leaves_with_path(axes, is_leaf=lambda x: isinstance(x, tuple))
    assert [path for path, _ in leaves] == [path for path, _ in named]
    for (path, leaf), (_, names) in zip(leaves, named, strict=True):
        assert len(names) == leaf.ndim, path
        assert set(names) <= LOGICAL, path
        assert leaf.dtype == np.float32, path
        assert (names[0] == "layers") == (path[0].key == "layers"), path
    count = sum(leaf.size for _, leaf in leaves)
    assert count == config.num_params == PUBLISHED.get(name, config.num_params)


def test_the_smallest_preset_is_below_a_million_parameters():
    assert models.presets.get("nano").num_params < 1_000_000
    assert set(PUBLISHED) < set(models.presets.names())


@pytest.mark.parametrize("biases", [False, True])
def test_axes_are_named_with_every_option(biases):
    config = models.presets.get(
        "nano",
        tie_embeddings=not biases,
        attention_bias=biases,
        mlp_bias=biases,
        qk_norm=not biases,
    )
    params, axes = models.abstract_params(config), models.logical_axes(config)
    jax.tree.map(lambda leaf, names: _assert(len(names) == leaf.ndim), params, axes)
    assert sum(x.size for x in jax.tree.leaves(params)) == config.num_params


def _assert(holds):
    assert holds


def _operations(config, unroll=False):
    """Lines of the lowered gradient and of the lowered rollout."""
    prompts, lengths = np.zeros((2, 3), np.int32), np.ones(2, np.int32)

    def total(params):
        tokens = np.zeros((2, 2, 4), np.int32)
        return models.token_logprobs(
            config, params, prompts, lengths, tokens, remat=True
        ).logprobs.sum()

    params = models.abstract_params(config)
    gradient = jax.jit(jax.grad(total)).lower(params).as_text()
    sampled = rollout.lower(
        config,
        DecodeConfig(
            RolloutConfig(group_size=2, max_completion_length=4),
            (0,),
            unroll_layers=unroll,
        ),
        params,
        Prompts(prompts, lengths, np.arange(2, dtype=np.uint32)),
        rng.stream_key(0, "rollout"),
    ).as_text()
    return len(gradient.splitlines()), len(sampled.splitlines())


def test_programs_do_not_grow_with_depth():
    shallow = models.presets.get("nano", num_layers=2, sliding_window=5, global_every=2)
    deep = dataclasses.replace(shallow, num_layers=12)
    assert _operations(deep) == _operations(shallow)
    # The measure sees depth where there is some: decoding that is unrolled.
    assert _operations(deep, unroll=True)[1] > 2 * _operations(shallow, unroll=True)[1]


def test_compiled_programs_do_not_grow_with_depth():
    def size(layers):
        config = models.presets.get("nano", num_layers=layers)

        def last(params):
            return models.prefill(
                config, params, np.zeros((1, 3), np.int32), np.array([2])
            )[0]

        compiled = jax.jit(last).lower(models.abstract_params(config)).compile()
        return len(compiled.as_text().splitlines())

    assert size(12) <= 1.05 * size(3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3"),
        ({"head_dim": 5}, "head_dim=5"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"sliding_window": -1}, "sliding_window=-1"),
        ({"rope_theta": 1.0}, "rope_theta=1.0"),
        ({"num_layer": 3}, "did you mean num_layers"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        models.presets.get("nano", **wrong)


def test_unknown_presets_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean qwen3-8b"):
        models.presets.get("qwen3-8")
