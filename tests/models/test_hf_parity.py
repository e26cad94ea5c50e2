"""Our decoder beside transformers on small checkpoints of every family.

`tests/make_hf_fixtures.py` made them and what they compute.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from decoder_passes import all_passes

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.models import families, hf
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, SamplingConfig, rollout

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
# Their options are in other checkpoints too.
LESS_OFTEN = {"llama2", "llama_linear", "qwen2_window", "smollm2"}
OFTEN_AND_LESS = [
    pytest.param(name, marks=[pytest.mark.slow, pytest.mark.ci])
    if name in LESS_OFTEN
    else name
    for name in NAMES
]


def test_every_family_has_a_checkpoint():
    configs = (FIXTURES / name / "config.json" for name in NAMES)
    kinds = {json.loads(path.read_text())["model_type"] for path in configs}
    assert kinds == set(families.FAMILIES)


@pytest.mark.parametrize("name", OFTEN_AND_LESS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name):
    """Prompts padded to one length; completions past every window."""
    expected = np.load(FIXTURES / name / "expected.npz")
    config, params = hf.load(FIXTURES / name, dtype="float32")
    lengths, tokens = expected["lengths"], expected["tokens"]
    num_new = tokens.shape[1]
    assert config.sliding_window < lengths.min() + num_new
    passes = all_passes(
        config, params, expected["prompts"], lengths, tokens[:, None], False
    )
    for row, length in enumerate(lengths):
        logits = expected["logits"][row, length - 1 : length - 1 + num_new]
        for kind, found in passes.items():
            gap = np.abs(found[row, 0] - logits).max() / np.abs(logits).max()
            assert gap < 2e-5, (kind, row)
    settings = RolloutConfig(
        group_size=1,
        max_completion_length=num_new,
        sampling=SamplingConfig(temperature=0.0),
    )
    greedy = DecodeConfig(settings, ())
    prompts = Prompts(expected["prompts"], lengths, np.arange(3, dtype=np.uint32))
    sampled = rollout(config, greedy, params, prompts, rng.stream_key(0, "rollout"))
    np.testing.assert_array_equal(sampled.tokens[:, 0], tokens)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_numbers_become_our_parameters_and_no_others(name):
    config, params = hf.load(FIXTURES / name)
    stored = {"llama2": "float32", "llama_linear": "float16"}.get(name, "bfloat16")
    for (path, leaf), (other, abstract) in zip(
        jax.tree.leaves_with_path(params),
        jax.tree.leaves_with_path(models.abstract_params(config)),
        strict=True,
    ):
        assert path == other
        assert leaf.shape == abstract.shape, path
        assert leaf.dtype == stored, path
