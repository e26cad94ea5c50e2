"""The fused step: what its loss and gradients do not depend on, and what they are.

With plain gradient descent at rate 1 the gradient is the difference of parameters.
"""

import dataclasses

import decoder_oracle
import jax
import numpy as np
import optax
import pytest

from jaxrl_surrogate import models, objectives, parallel, rng
from jaxrl_surrogate.batch import Batch, Prompts
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.models import attention, experts
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, SamplingConfig, rollout
from jaxrl_surrogate.telemetry.compiles import compile_count
from jaxrl_surrogate.training.state import init_state, restart
from jaxrl_surrogate.training.step import ComputeConfig, UpdateConfig, make_update

pytestmark = pytest.mark.both_pythons


CONFIG = models.presets.get("nano", vocab_size=40)
ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
SGD = optax.sgd(1.0)


def _family(name="grpo", size=4, **params):
    fn = objectives.advantages.get(name, **params)
    return objectives.table_family(fn.table, size)


@pytest.fixture(scope="module")
def params():
    return jax.device_get(init_state(CONFIG, SGD, ONE, 3).params)


@pytest.fixture
def batch(params, random):
    prompts = Prompts(
        random.integers(2, 40, size=(8, 6), dtype=np.int32),
        random.integers(1, 7, size=8).astype(np.int32),
        np.arange(8, dtype=np.uint32),
    )
    decode = DecodeConfig(
        RolloutConfig(group_size=4, max_completion_length=7), (0, 1, 2, 3)
    )
    done = rollout(CONFIG, decode, params, prompts, rng.stream_key(1, "rollout", 1))
    done = jax.device_get(done)
    # As if a tool had written some of them.
    chosen = done.loss_mask & (random.random(done.loss_mask.shape) < 0.8)
    return Batch(
        prompts,
        dataclasses.replace(done, loss_mask=chosen),
        random.integers(2, size=(8, 4)).astype(np.float32),
        random.random((8, 4)) < 0.9,
    )


def _gradient(
    params, batch, mesh=ONE, loss=None, config=CONFIG, reward_mode="binary", **compute
):
    """Loss and gradient of one update."""
    update = UpdateConfig(
        loss or LossConfig(), SamplingConfig(), reward_mode, ComputeConfig(**compute)
    )
    state = restart(params, config, SGD, mesh)
    step = make_update(config, update, SGD, mesh)
    state, metrics = step(state, batch, _family(), None)
    grads = jax.tree.map(lambda a, b: np.asarray(a) - b, params, state.params)
    return float(metrics["loss"]), grads


def _assert_near(one, other):
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        one[1],
        other[1],
    )


LOSSES = [
    LossConfig(normalization="sequence_sum"),
    LossConfig(normalization="dapo", policy="ppo_clip", entropy_coef=0.01),
    LossConfig(normalization="grpo"),
]


@pytest.mark.parametrize(
    "loss",
    [
        LOSSES[1],
        *(
            pytest.param(LOSSES[i], marks=[pytest.mark.slow, pytest.mark.ci])
            for i in (0, 2)
        ),
    ],
    ids=lambda loss: loss.normalization,
)
def test_cuts_padding_and_order_do_not_matter(params, batch, random, loss):
    whole = _gradient(params, batch, loss=loss)
    assert any(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(whole[1]))
    _assert_near(whole, _gradient(params, batch, loss=loss, microbatch_prompts=2))
    _assert_near(whole, _gradient(params, batch, loss=loss, logprob_chunk=32))
    order = random.permutation(8)
    shuffled = jax.tree.map(lambda leaf: leaf[order], batch)
    _assert_near(whole, _gradient(params, shuffled, loss=loss))

    def pad(leaf, value=9):
        width = [(0, 0)] * (leaf.ndim - 1) + [(0, 3)]
        return np.pad(leaf, width, constant_values=value)

    done = batch.completions
    padded = dataclasses.replace(
        batch,
        prompts=dataclasses.replace(batch.prompts, tokens=pad(batch.prompts.tokens)),
        completions=dataclasses.replace(
            done,
            tokens=pad(done.tokens),
            sampler_logprobs=pad(done.sampler_logprobs),
            loss_mask=pad(done.loss_mask, False),
        ),
    )
    _assert_near(whole, _gradient(params, padded, loss=loss))


def test_graded_rewards_are_weighed_level_by_level(params, batch, random):
    """The loss is linear in the weights: rewards 0, 1/2, 1 are two binary questions."""
    rewards = random.integers(0, 3, (8, 4)).astype(np.float32) / 2
    loss = LossConfig(normalization="sequence_sum")

    def gradient(rewards, kind="binary"):
        some = dataclasses.replace(batch, rewards=np.float32(rewards))
        return _gradient(params, some, loss=loss, reward_mode=kind)

    both = gradient(rewards >= 0.5), gradient(rewards >= 1)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *both)
    _assert_near(gradient(rewards, "layer_cake"), expected)
    # On binary rewards all three are the same.
    _assert_near(gradient(rewards >= 1, "layer_cake"), both[1])
    _assert_near(gradient(rewards >= 1, "mean"), both[1])


ALL_TERMS = LossConfig(
    "ppo_clip", 0.01, 0.02, "dr_grpo", kl_coef=0.5, kl_estimator="k3", entropy_coef=0.1
)
assert all(
    value for name, value in vars(ALL_TERMS).items() if name.endswith("_coef")
), "a term of the loss that no test has: give it a coefficient here"


@pytest.mark.parametrize(
    "loss", [*LOSSES, ALL_TERMS], ids=["sum", "dapo", "grpo", "all"]
)
def test_loss_and_gradient_are_those_of_the_equations(params, batch, random, loss):
    """One layer in float64 NumPy, a token at a time, from rewards to the loss."""
    config = dataclasses.replace(CONFIG, num_layers=1)
    params = decoder_oracle.random_params(models.abstract_params(config), random)
    reference = decoder_oracle.random_params(models.abstract_params(config), random)
    # The sampler's log-probabilities are of other parameters: ratios are not 1.
    few = jax.tree.map(lambda leaf: np.asarray(leaf)[:3], batch)
    step = make_update(config, UpdateConfig(loss, SamplingConfig()), SGD, ONE)
    state = restart(params, config, SGD, ONE)
    state, metrics = step(
        state, few, _family("rloo"), reference if loss.kl_coef else None
    )
    grads = jax.tree.map(lambda a, b: np.float64(a) - b, params, state.params)
    advantages = np.asarray(_family("rloo")(few.rewards, few.reward_mask))

    def scores(params):
        return decoder_oracle.token_scores(
            config, params, few.prompts, few.completions, SamplingConfig()
        )

    reference = scores(reference)[0] if loss.kl_coef else None

    def value(params):
        logprobs, entropy = scores(params)
        return decoder_oracle.batch_loss(
            loss, logprobs, few.completions.sampler_logprobs, advantages, entropy,
            reference, few.completions.lengths, few.reward_mask,
            few.completions.loss_mask,
        )  # fmt: skip

    assert metrics["loss"] == pytest.approx(value(params), rel=1e-4, abs=1e-5)
    way = decoder_oracle.random_params(params, random)
    found, expected = decoder_oracle.slopes(value, params, grads, way)
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-4)


# Sizes of data, fsdp, tensor, expert, sequence.
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        (1, 2, 2, 1, 2),
        pytest.param((8, 1, 1), marks=pytest.mark.slow),
        pytest.param((1, 4, 2), marks=pytest.mark.slow),
    ],
)
def test_eight_devices_take_the_step_of_one(params, batch, sizes):
    mesh = parallel.make_mesh(parallel.MeshConfig(*sizes))
    _assert_near(_gradient(params, batch), _gradient(params, batch, mesh))


def test_positions_are_split_where_they_divide(params, batch, monkeypatch):
    """Eight positions four ways, in several blocks of queries and of logits."""
    monkeypatch.setattr(attention, "QUERY_BLOCK", 1)
    longer = [(0, 0), (0, 0), (0, 1)]
    done = batch.completions
    done = dataclasses.replace(
        done,
        tokens=np.pad(done.tokens, longer),
        sampler_logprobs=np.pad(done.sampler_logprobs, longer),
        loss_mask=np.pad(done.loss_mask, longer),
    )
    batch = dataclasses.replace(batch, completions=done)
    mesh = parallel.make_mesh(parallel.MeshConfig(1, 2, 1, 1, 4))
    config = dataclasses.replace(CONFIG, sliding_window=5)
    settings = {"config": config, "logprob_chunk": 4 * 32, "remat": "block"}
    one = _gradient(params, batch, **settings)
    _assert_near(one, _gradient(params, batch, mesh, **settings))


@pytest.mark.parametrize(
    ("sizes", "few"), [((1, 2, 1, 4, 1), 0), ((1, 1, 2, 2, 2), experts.FEW_ROWS)]
)
def test_eight_devices_mix_experts_like_one(batch, monkeypatch, sizes, few):
    mixture = dataclasses.replace(CONFIG, num_experts=8, experts_per_token=3)
    params = jax.device_get(init_state(mixture, SGD, ONE, 5).params)
    mesh = parallel.make_mesh(parallel.MeshConfig(*sizes))
    one = _gradient(params, batch, config=mixture)
    monkeypatch.setattr(experts, "FEW_ROWS", few)
    router = one[1]["layers"]["mlp"]["router"]
    assert np.abs(router).max() > 1e-5
    _assert_near(one, _gradient(params, batch, mesh, config=mixture))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((1, 2, 2, 1, 2), dict(norm_placement="both", zero_centred_norms=True,
            scale_embeddings=True, attention_softcap=2.0, final_softcap=3.0,
            sliding_window=3, global_every=2, rope_local_theta=20.0)),
        ((2, 2, 2), dict(norm_placement="post", qk_norm_over="projection",
            attention_bias=True, attention_out_bias=True, rope_scaling="llama3")),
    ],
    ids=["gemma", "olmo"],
)  # fmt: skip
def test_eight_devices_take_the_step_of_one_in_other_families(batch, sizes, options):
    config = dataclasses.replace(CONFIG, **options)
    params = jax.device_get(init_state(config, SGD, ONE, 5).params)
    mesh = parallel.make_mesh(parallel.MeshConfig(*sizes))
    one = _gradient(params, batch, config=config)
    _assert_near(one, _gradient(params, batch, mesh, config=config, remat="block"))


def test_applied_weights_are_the_advantages_where_nothing_bends_them(params, batch):
    """Whole and in slices, in the order of the batch; elsewhere they are not."""
    family = _family("grpo")
    nominal = np.asarray(family(batch.rewards, batch.reward_mask))
    # A sample of which the policy chose no token has no score to be weighed.
    nominal = np.where(batch.completions.loss_mask.any(-1), nominal, 0)
    for loss, parts, equal in (
        (LossConfig(normalization="sequence_sum"), 0, True),
        (LossConfig(normalization="sequence_sum"), 2, True),
        (LossConfig("ppo_clip", normalization="sequence_sum"), 2, True),
        (LossConfig(normalization="grpo"), 0, False),
    ):
        update = UpdateConfig(
            loss, SamplingConfig(), compute=ComputeConfig(microbatch_prompts=parts)
        )
        step = make_update(CONFIG, update, SGD, ONE)
        _, metrics = step(restart(params, CONFIG, SGD, ONE), batch, family, None)
        close = np.allclose(metrics["applied_weights"], nominal, rtol=1e-4, atol=1e-5)
        assert close == equal, loss


def test_another_objective_is_not_another_program(params, batch):
    update = UpdateConfig(LossConfig(), SamplingConfig())
    step = make_update(CONFIG, update, SGD, ONE)
    state = restart(params, CONFIG, SGD, ONE)
    for name, settings in (("rloo", {}), ("grpo", {}), ("rloo_pass_at_k", {"k": 3})):
        family = _family(name, **settings)
        before = compile_count()
        state, _ = step(state, batch, family, None)
        jax.block_until_ready(state)
        if name != "rloo":
            assert compile_count() == before


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(params, batch):
    step = make_update(CONFIG, UpdateConfig(LossConfig(), SamplingConfig()), SGD, ONE)
    bad = _family() * float("nan")
    state, metrics = step(restart(params, CONFIG, SGD, ONE), batch, bad, None)
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))


@pytest.mark.parametrize(
    ("sampling", "loss"),
    [
        (SamplingConfig(top_k=4), LossConfig(normalization="sequence_sum")),
        (SamplingConfig(1.3, top_p=0.7, min_p=0.02), ALL_TERMS),
    ],
    ids=["top_k", "top_p"],
)
def test_tokens_that_truncation_has_since_excluded_count_nothing(
    batch, random, sampling, loss
):
    """A second epoch: the parameters that sampled, moved by one update."""
    config = dataclasses.replace(CONFIG, num_layers=1)
    params = decoder_oracle.random_params(models.abstract_params(config), random)
    few = jax.tree.map(lambda leaf: np.asarray(leaf)[:3], batch)
    decode = DecodeConfig(
        RolloutConfig(group_size=4, max_completion_length=7, sampling=sampling),
        (0, 1, 2, 3),
    )
    key = rng.stream_key(2, "rollout", 1)
    done = jax.device_get(rollout(config, decode, params, few.prompts, key))
    few = dataclasses.replace(few, completions=done)
    reference = params if loss.kl_coef else None
    step = make_update(config, UpdateConfig(loss, sampling), SGD, ONE)
    state = restart(params, config, SGD, ONE)
    state, first = step(state, few, _family("rloo"), reference)
    assert first["excluded_fraction"] == 0
    way = decoder_oracle.random_params(params, random)
    moved = jax.tree.map(
        lambda leaf, by: np.float32(leaf + 0.2 * by), jax.device_get(state.params), way
    )
    state = restart(moved, config, SGD, ONE)
    state, metrics = step(state, few, _family("rloo"), reference)
    grads = jax.tree.map(lambda a, b: np.float64(a) - b, moved, state.params)
    advantages = np.asarray(_family("rloo")(few.rewards, few.reward_mask))

    def scores(params):
        return decoder_oracle.token_scores(config, params, few.prompts, done, sampling)

    reference = scores(params)[0] if loss.kl_coef else None

    def value(params):
        logprobs, entropy = scores(params)
        return decoder_oracle.batch_loss(
            loss, logprobs, done.sampler_logprobs, advantages, entropy, reference,
            done.lengths, few.reward_mask,
        )  # fmt: skip

    outside = np.isneginf(scores(moved)[0])
    outside &= few.reward_mask[..., None]
    tokens = (done.lengths * few.reward_mask).sum()
    assert 0 < outside.sum() < tokens
    assert metrics["excluded_fraction"] == pytest.approx(outside.sum() / tokens)
    assert metrics["skipped"] == 0
    finite = (np.isfinite(x).all() for x in jax.tree.leaves((metrics, state.params)))
    assert all(finite), metrics
    assert metrics["loss"] == pytest.approx(value(moved), rel=1e-4, abs=1e-5)
    found, expected = decoder_oracle.slopes(value, moved, grads, way)
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_a_loss_that_is_not_finite_is_skipped_though_its_gradient_is(params, batch):
    """A damaged reference makes the KL NaN; as k1, bounded, it adds no gradient."""
    loss = LossConfig(kl_coef=0.1, kl_estimator="k1")
    step = make_update(CONFIG, UpdateConfig(loss, SamplingConfig()), SGD, ONE)
    damaged = jax.tree.map(lambda leaf: leaf * np.float32("nan"), params)
    before = restart(params, CONFIG, SGD, ONE)
    state, metrics = step(before, batch, _family(), damaged)
    assert np.isnan(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))
