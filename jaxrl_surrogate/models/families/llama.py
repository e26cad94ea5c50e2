"""Llama 2 and 3 (SmolLM2 too), and Mistral."""

from jaxrl_surrogate.models.families.family import OPTIONAL_KV_HEADS, Family, Key
from jaxrl_surrogate.models.families.windows import Windows

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys={
        **OPTIONAL_KV_HEADS,
        "attention_bias": Key("attention_bias", False),
        "attention_out_bias": Key("attention_bias", False),
        "mlp_bias": Key("mlp_bias", False),
    },
)

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    windows=Windows(default=4096),
)
