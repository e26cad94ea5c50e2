"""Tokens that the policy did not choose: in no loss, in no mean, in every record."""

import dataclasses

import jax
import numpy as np

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Batch, Prompts, batch_shapes
from jaxrl_surrogate.loop.batch_metrics import batch_metrics
from jaxrl_surrogate.models import presets
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, rollout

CONFIG = presets.get("nano", vocab_size=24)


def _rollout(random, policy_step):
    prompts = Prompts(
        random.integers(4, 24, size=(3, 5), dtype=np.int32),
        random.integers(1, 6, size=3).astype(np.int32),
        np.arange(3, dtype=np.uint32),
    )
    decode = DecodeConfig(
        RolloutConfig(group_size=2, max_completion_length=6), stop_tokens=(0, 1, 2, 3)
    )
    params = models.init_params(CONFIG, jax.random.key(1))
    key = rng.stream_key(0, "rollout", 1)
    done = jax.device_get(
        rollout(CONFIG, decode, params, prompts, key, None, policy_step)
    )
    rewards = random.integers(2, size=(3, 2)).astype(np.float32)
    return Batch(prompts, done, rewards, np.ones((3, 2), bool))


def test_the_sampler_chooses_every_token_and_says_of_which_step_it_was(random):
    batch = _rollout(random, 4)
    done = batch.completions
    np.testing.assert_array_equal(done.loss_mask, done.mask)
    assert done.policy_step.dtype == np.int32 and (done.policy_step == 4).all()
    for leaf, shape in zip(
        jax.tree.leaves(batch), jax.tree.leaves(batch_shapes(3, 2, 5, 6)), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)


def test_metrics_tell_chosen_tokens_from_all(random):
    batch = _rollout(random, 4)
    done = batch.completions
    chosen = done.loss_mask & (random.random(done.mask.shape) < 0.5)
    chosen[0, 0, 0], chosen[1, 1] = True, False
    policy_step = np.int32([[4, 4], [4, 3], [3, 3]])
    done = dataclasses.replace(done, loss_mask=chosen, policy_step=policy_step)
    found = batch_metrics(dataclasses.replace(batch, completions=done), 5)
    assert found["length"] == done.lengths.mean()
    assert found["completion_tokens"] == done.lengths.sum()
    assert found["loss_tokens"] == chosen.sum() / 6
    entropy = -np.float64(done.sampler_logprobs)[chosen].mean()
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-5)
    assert found["policy_lag"] == 0.5
    nothing = dataclasses.replace(done, loss_mask=np.zeros_like(chosen))
    found = batch_metrics(dataclasses.replace(batch, completions=nothing), 5)
    assert found["entropy"] == 0 and found["loss_tokens"] == 0
