"""What configs of published models mean, and what is refused of them."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from jaxrl_surrogate import models
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.models import families
from jaxrl_surrogate.models.families import published

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*/config.json"))
# Keys that say nothing where no layer has a window, and are then written otherwise.
UNREAD = {"sliding_window", "layer_types", "max_window_layers"}
LLAMA = published.PUBLISHED["llama3.2-1b"]
GEMMA3 = published.PUBLISHED["gemma3-1b"]
QWEN2 = published.PUBLISHED["qwen2.5-0.5b"]


def read(hf):
    return families.of_hf_config(hf).config(hf)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name)
def test_configs_that_transformers_wrote_come_back_as_they_were(path):
    hf = json.loads(path.read_text())
    family, config = families.of_hf_config(hf), read(hf)
    again = family.hf_config(config)
    assert read(again) == config
    same = {key for key in again if key in hf} - UNREAD
    assert {key: again[key] for key in same} == {key: hf[key] for key in same}


@pytest.mark.parametrize("name", models.presets.names())
def test_every_preset_has_a_family_and_a_name_for_each_parameter(name):
    config = models.presets.get(name)
    family = families.of_decoder(config)
    assert read(family.hf_config(config)) == config
    paths = {
        tuple(key.key for key in path)
        for path, _ in jax.tree.leaves_with_path(models.abstract_params(config))
    }
    tensors = family.names(config)
    assert set(tensors) == paths
    assert len({tensor.name for tensor in tensors.values()}) == len(tensors)


def test_a_decoder_of_no_family_is_refused():
    config = models.presets.get("nano", scale_embeddings=True)
    with pytest.raises(FieldErrors, match="no family of models has this combination"):
        families.of_decoder(config)
    with pytest.raises(FieldErrors, match="not a decoder of the family llama"):
        families.FAMILIES["llama"].hf_config(config)


def test_layers_with_and_without_windows():
    """The published patterns, in the words of either version of transformers."""
    gemma = read(GEMMA3)
    assert [w < 2**30 for w in gemma.windows[:12]] == [*[True] * 5, False] * 2
    listed = {
        **GEMMA3,
        "layer_types": families.FAMILIES["gemma3_text"].hf_config(gemma)["layer_types"],
    }
    assert read(listed) == gemma
    assert read({**GEMMA3, "sliding_window_pattern": 3}).global_every == 3
    assert read(QWEN2).windows is None
    slides = QWEN2 | {"use_sliding_window": True, "sliding_window": 7}
    assert read(slides | {"max_window_layers": 0}).windows == (7,) * 24
    assert read(slides | {"max_window_layers": 24}).windows is None
    with pytest.raises(FieldErrors, match=r"layer_types=.*every n-th layer"):
        read(slides | {"max_window_layers": 2})
    assert (
        read({**published.PUBLISHED["mistral-7b-v0.1"], "sliding_window": None}).windows
        is None
    )


def test_rotary_settings_of_both_versions_are_one():
    new = {key: value for key, value in LLAMA.items() if not key.startswith("rope")}
    new["rope_parameters"] = LLAMA["rope_scaling"] | {"rope_theta": LLAMA["rope_theta"]}
    assert read(new) == read(LLAMA)
    assert read(LLAMA).rope_scaling == "llama3"
    assert read(LLAMA).rope_factor == 32
    linear = GEMMA3 | {"rope_scaling": {"type": "linear", "factor": 8.0}}
    nested = GEMMA3 | {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {
                "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6,
            },
        }
    }  # fmt: skip
    assert read(nested) == read(linear)
    assert (read(linear).rope_local_theta, read(linear).rope_theta) == (1e4, 1e6)


def test_soft_caps_that_are_null_are_none_and_missing_ones_the_familys():
    hf = published.PUBLISHED["gemma2-2b"]
    assert (read(hf).attention_softcap, read(hf).final_softcap) == (50, 30)
    off = hf | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    assert (read(off).attention_softcap, read(off).final_softcap) == (0, 0)
    assert families.of_decoder(read(off)).model_type == "gemma2"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"model_type": "mamba"}, ["model_type='mamba'"]),
        ({"model_type": None}, ["model_type='None'"]),
        ({"model_type": "lama"}, ["did you mean llama"]),
        ({"architectures": ["LlamaForTokenClassification"]}, ["architectures="]),
        ({"hidden_act": "relu"}, ["hidden_act='relu': expected 'silu'"]),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            ["rope_scaling.rope_type='yarn'", "default, linear, llama3"],
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": "8"}},
            ["factor='8'", "low_freq_factor=None", "original_max_position"],
        ),
        ({"rope_scaling": "yarn"}, ["rope_scaling='yarn': expected an object"]),
        ({"rope_theta": float("nan")}, ["rope_theta=nan"]),
        (
            {"hidden_size": "2048", "num_hidden_layers": None, "mlp_bias": 1},
            ["hidden_size='2048'", "num_hidden_layers=None", "mlp_bias=1"],
        ),
        ({"num_hidden_layers": 10**15}, ["num_hidden_layers=1000000000000000"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers=True"]),
        ({"num_key_value_heads": 5}, ["num_kv_heads=5"]),
        ({"head_dim": 63}, ["head_dim=63"]),
        ({"num_attention_heads": 0, "num_key_value_heads": 0}, ["num_heads=0"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config="]),
        ({"layer_types": ["sliding_attention"] * 16}, ["layer_types="]),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(changes, lines):
    with pytest.raises(ValueError) as refused:
        read({**LLAMA, **changes})
    for line in lines:
        assert line in str(refused.value)


def test_mixtures_with_dense_layers_are_refused():
    hf = published.PUBLISHED["qwen3-30b-a3b"]
    assert dataclasses.asdict(read(hf))["num_experts"] == 128
    with pytest.raises(FieldErrors, match="mlp_only_layers=\\[0\\]"):
        read(hf | {"mlp_only_layers": [0]})
