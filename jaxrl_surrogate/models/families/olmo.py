"""OLMo 2 (arXiv 2501.00656): norms on what attention and MLP add."""

from jaxrl_surrogate.models.families.family import OPTIONAL_KV_HEADS, Family, Key

OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    keys={
        **OPTIONAL_KV_HEADS,
        "norm_eps": Key("rms_norm_eps", 1e-5),
        "attention_bias": Key("attention_bias", False),
        "attention_out_bias": Key("attention_bias", False),
    },
    always={
        "norm_placement": "post",
        "qk_norm": True,
        "qk_norm_over": "projection",
    },
    norms={
        "attention_post_norm": "post_attention_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
)
