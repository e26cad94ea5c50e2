"""Configs that are built in Python refuse what those from a file could not be."""

import dataclasses
import math

import numpy as np
import pytest

from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.models import presets
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, SamplingConfig
from jaxrl_surrogate.training.optimizer import OptimizerConfig
from jaxrl_surrogate.training.step import ComputeConfig, UpdateConfig

LOSS, SAMPLING, MESH, OPTIMIZER = (
    LossConfig(),
    SamplingConfig(),
    MeshConfig(),
    OptimizerConfig(),
)
DECODER = presets.get("nano", vocab_size=40)
DECODE = DecodeConfig(RolloutConfig(group_size=4, max_completion_length=7), (0,))
UPDATE = UpdateConfig(LOSS, SAMPLING)
COMPUTE = ComputeConfig()
NAN = float("nan")


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        (LOSS, "policy", "ppo-clip", "expected policy_gradient | ppo_clip; did you "
         "mean ppo_clip?"),
        (LOSS, "normalization", "drgrpo", "expected sequence_sum | dr_grpo | grpo | "
         "dapo; did you mean dr_grpo?"),
        (LOSS, "kl_estimator", "k4", "expected k1 | k2 | k3"),
        (LOSS, "kl_estimator", 3, "expected k1 | k2 | k3; did you mean k3?"),
        (LOSS, "clip_low", NAN, "expected number"),
        (LOSS, "clip_high", NAN, "expected number"),
        (LOSS, "kl_coef", NAN, "expected number"),
        (LOSS, "kl_coef", math.inf, "expected 0 or more, finite"),
        (LOSS, "entropy_coef", "0.1", "expected number"),
        (LOSS, "entropy_coef", -math.inf, "expected a finite number"),
        (OPTIMIZER, "name", "admaw", "expected adamw | adam | sgd | lion | adafactor; "
         "did you mean adamw?"),
        (OPTIMIZER, "schedule", "cosin", "expected constant | linear | cosine; did you "
         "mean cosine?"),
        (OPTIMIZER, "learning_rate", NAN, "expected number"),
        (OPTIMIZER, "warmup_steps", 1.5, "expected integer"),
        (OPTIMIZER, "eps", math.inf, "expected more than 0, finite"),
        (OPTIMIZER, "offload", "no", "expected true or false"),
        (SAMPLING, "temperature", NAN, "expected number"),
        (SAMPLING, "top_k", True, "expected integer"),
        (SAMPLING, "top_k", 2.0, "expected integer"),
        (SAMPLING, "top_p", None, "expected number"),
        (MESH, "data", 2.0, "expected integer"),
        (MESH, "fsdp", "2", "expected integer"),
        (DECODER, "activation", "silo", "expected silu | gelu; did you mean silu?"),
        (DECODER, "compute_dtype", "float16", "expected float32 | bfloat16; did you "
         "mean bfloat16?"),
        (DECODER, "num_layers", 2.0, "expected integer"),
        (DECODER, "rope_theta", NAN, "expected number"),
        (DECODER, "rope_theta", math.inf, "expected more than 1, finite"),
        (DECODER, "norm_eps", NAN, "expected number"),
        (DECODER, "norm_eps", -1e-6, "expected 0 or more, finite"),
        (DECODER, "qk_norm", 1, "expected true or false"),
        (UPDATE, "reward_mode", "layercake", "expected binary | layer_cake | mean; did "
         "you mean layer_cake?"),
        (COMPUTE, "remat", "blocks", "expected none | block; did you mean block?"),
        (COMPUTE, "microbatch_prompts", -1, "expected at least 0"),
        (COMPUTE, "logprob_chunk", 0, "expected at least 1"),
        (UPDATE, "loss", {"policy": "ppo_clip"}, "expected LossConfig"),
        (DECODE.rollout, "group_size", 4.0, "expected integer"),
        (DECODE, "stop_tokens", [0], "expected tuple, each integer"),
        (DECODE.rollout, "sampling", "greedy", "expected SamplingConfig"),
    ],
)  # fmt: skip
def test_a_field_says_what_is_expected(config, field, value, message):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(config, **{field: value})
    assert str(caught.value) == f"{field}={value!r}: {message}"


def test_all_wrong_fields_are_named_together():
    with pytest.raises(FieldErrors) as caught:
        LossConfig(policy="ppo", kl_estimator="k9", clip_low=np.float32("nan"))
    assert [(error.field, error.expected) for error in caught.value.errors] == [
        ("policy", "policy_gradient | ppo_clip"),
        ("clip_low", "number"),
        ("kl_estimator", "k1 | k2 | k3"),
    ]


def test_an_item_of_a_tuple_is_named():
    with pytest.raises(FieldErrors, match=r"^stop_tokens\[1\]='0': expected integer$"):
        dataclasses.replace(DECODE, stop_tokens=(0, "0"))


def test_numbers_of_numpy_and_whole_floats_are_numbers():
    assert LossConfig(kl_coef=1, clip_high=math.inf).kl_coef == 1
    assert SamplingConfig(temperature=np.float32(0.5), top_k=np.int64(3)).top_k == 3
    assert (
        DecodeConfig(
            RolloutConfig(group_size=np.int32(4), max_completion_length=7), ()
        ).rollout.group_size
        == 4
    )
