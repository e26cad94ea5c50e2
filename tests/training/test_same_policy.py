"""Sampler and trainer compute one policy, also where activations are bfloat16.

The decoders are so small that a CPU adds everything up in one order: what differs is
rounded in another place. In larger ones sums of another order turn a rounding now and
then, whatever the program.
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
from jaxrl_surrogate.models import experts
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, SamplingConfig, rollout
from jaxrl_surrogate.training.state import restart
from jaxrl_surrogate.training.step import ComputeConfig, UpdateConfig, make_update

pytestmark = pytest.mark.both_pythons


ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
SGD = optax.sgd(1.0)
SMALL = models.DecoderConfig(
    vocab_size=24, num_layers=2, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=4,
    mlp_dim=16, compute_dtype="bfloat16",
)  # fmt: skip
# A shape, whether the sampler unrolls its layers, and settings of the trainer.
CASES = {
    "qk_norm": ({"qk_norm": True}, True, {}),
    "biased": (
        {
            "attention_bias": True, "mlp_bias": True, "activation": "gelu",
            "tie_embeddings": False, "sliding_window": 4, "global_every": 2,
        },
        False,
        {"remat": "block", "microbatch_prompts": 4, "logprob_chunk": 32},
    ),
    "mixture": (
        {"num_experts": 5, "experts_per_token": 2, "normalize_experts": False},
        True,
        {},
    ),
}  # fmt: skip


def perturbed(config, random):
    """Parameters as after some training: none as it is drawn, scales of norms too."""
    params = jax.device_get(models.init_params(config, jax.random.key(3)))
    noise = decoder_oracle.random_params(params, random, scale=0.1)
    return jax.tree.map(
        lambda leaf, z: leaf + z * max(1e-1, np.abs(leaf).mean()), params, noise
    )


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_log_probabilities_of_the_two_are_equal(case, random, monkeypatch):
    shape, unroll, settings = CASES[case]
    config = dataclasses.replace(SMALL, **shape)
    drawn = [_sampled(config, unroll, random) for _ in range(5)]
    # The trainer has so many rows that it sorts them by expert.
    monkeypatch.setattr(experts, "FEW_ROWS", 0)
    update = UpdateConfig(
        LossConfig(), SamplingConfig(), compute=ComputeConfig(**settings)
    )
    step = make_update(config, update, SGD, ONE)
    family = objectives.table_family(objectives.advantages.get("rloo").table, 4)
    gaps = []
    for params, batch in drawn:
        _, metrics = step(restart(params, config, SGD, ONE), batch, family, None)
        assert metrics["grad_norm"] > 1e-3
        gaps.append(float(metrics["sampler_trainer_logprob_diff_max"]))
    # A sum on the border of two bfloat16 may fall to either side in one draw; a place
    # that is rounded in one program alone is seen in every draw.
    assert np.median(gaps) < 1e-4, gaps


def _sampled(config, unroll, random):
    """Parameters and a batch that they sampled."""
    params = perturbed(config, random)
    scales = params["layers"]["mlp_norm"]["scale"]
    assert 0.05 < np.std(scales) < 0.2
    prompts = Prompts(
        random.integers(24, size=(8, 9), dtype=np.int32),
        random.integers(1, 10, size=8).astype(np.int32),
        np.arange(8, dtype=np.uint32),
    )
    decode = DecodeConfig(
        RolloutConfig(group_size=4, max_completion_length=12),
        (3, 17),
        unroll_layers=unroll,
    )
    key = rng.stream_key(0, "rollout", 1)
    done = jax.device_get(rollout(config, decode, params, prompts, key))
    assert done.lengths.std() > 0
    rewards = random.integers(2, size=(8, 4)).astype(np.float32)
    return params, Batch(prompts, done, rewards, np.ones((8, 4), bool))
