"""Qwen2 and 2.5 (arXiv 2412.15115), Qwen3 and its mixtures (arXiv 2505.09388)."""

from jaxrl_surrogate.models.families.family import Family, Key
from jaxrl_surrogate.models.families.windows import Windows

_BIASES = {
    "attention_bias": Key("attention_bias", False),
    "attention_out_bias": Key("attention_bias", False),
}
_WINDOWS = Windows(default=4096, switch=True, from_layer=True, listed=True)

QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    always={"attention_bias": True},
    windows=_WINDOWS,
)

QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    keys={"head_dim": Key("head_dim", 128), **_BIASES},
    always={"qk_norm": True},
    windows=_WINDOWS,
)

QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    keys={
        "mlp_dim": Key("moe_intermediate_size"),
        "num_experts": Key("num_experts", also=("num_local_experts",)),
        "experts_per_token": Key("num_experts_per_tok"),
        "normalize_experts": Key("norm_topk_prob", False),
        **_BIASES,
    },
    always={"qk_norm": True},
    windows=Windows(default=4096, switch=True),
    harmless={"decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
)
