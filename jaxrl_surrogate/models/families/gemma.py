"""Gemma 2 (arXiv 2408.00118) and the text of Gemma 3 (arXiv 2503.19786)."""

from jaxrl_surrogate.models.families.family import Family, Key
from jaxrl_surrogate.models.families.windows import Windows

_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
_ALWAYS = {
    "norm_placement": "both",
    "zero_centred_norms": True,
    "scale_embeddings": True,
}
_TANH = {"gelu": "gelu_pytorch_tanh"}


def _keys(attention_cap: float, final_cap: float) -> dict[str, Key]:
    return {
        "head_dim": Key("head_dim", 256),
        "activation": Key("hidden_activation", "gelu", spelled=_TANH),
        "tie_embeddings": Key("tie_word_embeddings", True),
        "attention_bias": Key("attention_bias", False),
        "attention_out_bias": Key("attention_bias", False),
        "query_pre_attn_scalar": Key("query_pre_attn_scalar", 256.0, whole=True),
        "attention_softcap": Key("attn_logit_softcapping", attention_cap, null=0.0),
        "final_softcap": Key("final_logit_softcapping", final_cap, null=0.0),
    }


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    keys=_keys(50.0, 30.0),
    always=_ALWAYS,
    norms=_NORMS,
    windows=Windows(default=4096, global_every=2, listed=True),
)

GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    keys=_keys(0.0, 0.0),
    always={**_ALWAYS, "qk_norm": True},
    norms=_NORMS,
    windows=Windows(default=4096, global_every=6, listed=True),
    theta=1e6,
    local_theta=1e4,
)
