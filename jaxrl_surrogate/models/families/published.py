"""Configs of published checkpoints, with only the keys that affect the computation."""

from collections.abc import Mapping
from typing import Any


def _sizes(layers: int, embed: int, heads: int, kv_heads: int, mlp: int) -> dict:
    return {
        "num_hidden_layers": layers,
        "hidden_size": embed,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
    }


_TIED = {"tie_word_embeddings": True}
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
}
_SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e5,
    **_TIED,
}
_MISTRAL = {
    "model_type": "mistral",
    "rms_norm_eps": 1e-5,
    **_sizes(32, 4096, 32, 8, 14_336),
}
_QWEN2 = {"model_type": "qwen2", "vocab_size": 151_936, "rope_theta": 1e6}
_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "rope_theta": 1e6,
    "head_dim": 128,
}
_QWEN3_MOE = {**_QWEN3, "model_type": "qwen3_moe", "norm_topk_prob": True}
_GEMMA2 = {"model_type": "gemma2", "vocab_size": 256_000, "sliding_window": 4096}
_GEMMA3 = {"model_type": "gemma3_text", "vocab_size": 262_144, "sliding_window": 512}
_OLMO2 = {
    "model_type": "olmo2",
    "vocab_size": 100_352,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5e5,
}


def _llama3_scaling(factor: float) -> dict:
    return {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    }


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "qwen2.5-0.5b": _QWEN2 | _sizes(24, 896, 14, 2, 4864) | _TIED,
    "qwen2.5-1.5b": _QWEN2 | _sizes(28, 1536, 12, 2, 8960) | _TIED,
    "qwen2.5-7b": _QWEN2 | _sizes(28, 3584, 28, 4, 18_944) | {"vocab_size": 152_064},
    "qwen3-0.6b": _QWEN3 | _sizes(28, 1024, 16, 8, 3072) | _TIED,
    "qwen3-1.7b": _QWEN3 | _sizes(28, 2048, 16, 8, 6144) | _TIED,
    "qwen3-4b": _QWEN3 | _sizes(36, 2560, 32, 8, 9728) | _TIED,
    "qwen3-8b": _QWEN3 | _sizes(36, 4096, 32, 8, 12_288),
    "qwen3-32b": _QWEN3 | _sizes(64, 5120, 64, 8, 25_600),
    "qwen3-30b-a3b": _QWEN3_MOE
    | _sizes(48, 2048, 32, 4, 6144)
    | {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8},
    "llama3-8b": _LLAMA | _sizes(32, 4096, 32, 8, 14_336),
    "llama3.1-8b": _LLAMA | _sizes(32, 4096, 32, 8, 14_336) | _llama3_scaling(8.0),
    "llama3.2-1b": _LLAMA
    | _sizes(16, 2048, 32, 8, 8192)
    | _llama3_scaling(32.0)
    | _TIED,
    "smollm2-135m": _SMOLLM2 | _sizes(30, 576, 9, 3, 1536),
    "smollm2-360m": _SMOLLM2 | _sizes(32, 960, 15, 5, 2560),
    "smollm2-1.7b": _SMOLLM2 | _sizes(24, 2048, 32, 32, 8192) | {"rope_theta": 1.3e5},
    "mistral-7b-v0.1": _MISTRAL | {"vocab_size": 32_000, "sliding_window": 4096},
    "mistral-7b-v0.3": _MISTRAL
    | {"vocab_size": 32_768, "sliding_window": None, "rope_theta": 1e6},
    "gemma2-2b": _GEMMA2 | _sizes(26, 2304, 8, 4, 9216),
    "gemma3-270m": _GEMMA3 | _sizes(18, 640, 4, 1, 2048),
    "gemma3-1b": _GEMMA3 | _sizes(26, 1152, 4, 1, 6912),
    "olmo2-1b": _OLMO2 | _sizes(16, 2048, 16, 16, 8192),
    "olmo2-7b": _OLMO2 | _sizes(32, 4096, 32, 32, 11_008),
}
