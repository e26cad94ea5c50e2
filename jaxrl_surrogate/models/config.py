"""Configs of decoders. One dataclass describes every family in `models.families`."""

import dataclasses
import math
from typing import Annotated, Literal

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.typed_fields import check_fields

# The window of a layer without one, in a model in which other layers have a window.
UNLIMITED = 2**30


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shape and options of a decoder-only transformer.

    Hashable, so that jitted functions take it as a static argument.
    """

    vocab_size: Annotated[int, "rows of the embedding table"]
    num_layers: Annotated[int, "transformer blocks"]
    embed_dim: Annotated[int, "width of the residual stream, D"]
    num_heads: Annotated[int, "query heads"]
    num_kv_heads: Annotated[int, "key and value heads; divides num_heads"]
    head_dim: Annotated[int, "width of one head; even"]
    mlp_dim: Annotated[int, "hidden width of the gated MLP, or of one expert"]
    activation: Annotated[Literal["silu", "gelu"], "gate of the MLP"] = "silu"
    qk_norm: Annotated[bool, "RMSNorm on queries and keys before they turn"] = False
    qk_norm_over: Annotated[
        Literal["head", "projection"], "what one such norm spans: a head, or all heads"
    ] = "head"
    norm_placement: Annotated[
        Literal["pre", "post", "both"],
        "norms on what attention and MLP read, on what they add, or on both",
    ] = "pre"
    zero_centred_norms: Annotated[bool, "norms multiply by 1 + scale"] = False
    attention_bias: Annotated[bool, "bias on the q, k, v projections"] = False
    attention_out_bias: Annotated[bool, "bias on attention's output"] = False
    mlp_bias: Annotated[bool, "bias on the three MLP projections"] = False
    tie_embeddings: Annotated[bool, "the output head is the embedding table"] = True
    scale_embeddings: Annotated[bool, "embeddings times the root of D"] = False
    query_pre_attn_scalar: Annotated[
        float, "scores are divided by its root; 0: head_dim"
    ] = 0.0
    attention_softcap: Annotated[
        float, "scores s become c tanh(s / c) with this c; 0: they stay"
    ] = 0.0
    final_softcap: Annotated[float, "the same for the logits"] = 0.0
    rope_theta: Annotated[float, "base of the rotary frequencies"] = 1e4
    rope_local_theta: Annotated[
        float, "base in layers with a window, unscaled; 0: as in the others"
    ] = 0.0
    rope_scaling: Annotated[
        Literal["none", "linear", "llama3"], "how frequencies shrink for long contexts"
    ] = "none"
    rope_factor: Annotated[float, "frequencies are divided by it"] = 1.0
    rope_low_freq_factor: Annotated[
        float, "llama3: slower than so many turns in the original length: divided"
    ] = 1.0
    rope_high_freq_factor: Annotated[
        float, "llama3: faster than so many turns in it: as they were"
    ] = 4.0
    rope_original_length: Annotated[
        int, "llama3: positions that the model was first trained on"
    ] = 8192
    norm_eps: Annotated[float, "epsilon of RMSNorm"] = 1e-6
    sliding_window: Annotated[
        int, "positions a token sees back, itself included; 0: all"
    ] = 0
    global_every: Annotated[
        int, "with a sliding window, every n-th layer sees everything; 0: none"
    ] = 0
    num_experts: Annotated[int, "gated MLPs of a mixture; 0: one for all tokens"] = 0
    experts_per_token: Annotated[int, "experts that a token uses"] = 0
    normalize_experts: Annotated[bool, "weights of a token's experts sum to one"] = True
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"], "of activations; parameters, softmax: float32"
    ] = "float32"

    def __post_init__(self):
        check_fields(self)
        for field in (
            "vocab_size",
            "num_layers",
            "embed_dim",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "mlp_dim",
        ):
            if getattr(self, field) < 1:
                raise FieldError(field, getattr(self, field), "at least 1")
        if self.num_heads % self.num_kv_heads:
            raise FieldError(
                "num_kv_heads",
                self.num_kv_heads,
                f"a divisor of num_heads={self.num_heads}",
            )
        if self.head_dim % 2:
            raise FieldError(
                "head_dim",
                self.head_dim,
                "an even number, rotary embeddings turn pairs of features",
            )
        for field in ("sliding_window", "global_every"):
            if getattr(self, field) < 0:
                raise FieldError(field, getattr(self, field), "0 or more")
        if self.num_experts < 0:
            raise FieldError("num_experts", self.num_experts, "0 or more")
        least = min(1, self.num_experts)
        if not least <= self.experts_per_token <= self.num_experts:
            raise FieldError(
                "experts_per_token",
                self.experts_per_token,
                f"{least} to num_experts={self.num_experts}",
            )
        if self.num_experts and self.mlp_bias:
            raise FieldError(
                "mlp_bias", True, problem="experts have none", expected="False"
            )
        if not 1 < self.rope_theta < math.inf:
            raise FieldError("rope_theta", self.rope_theta, "more than 1, finite")
        local = self.rope_local_theta
        if local and not (1 < local < math.inf and self.sliding_window):
            raise FieldError(
                "rope_local_theta", local,
                "0, or more than 1 and finite with a sliding_window",
            )  # fmt: skip
        for field in ("query_pre_attn_scalar", "attention_softcap", "final_softcap"):
            if not 0 <= getattr(self, field) < math.inf:
                raise FieldError(field, getattr(self, field), "0 or more, finite")
        if not 0 < self.rope_factor < math.inf:
            raise FieldError("rope_factor", self.rope_factor, "more than 0, finite")
        low, high = self.rope_low_freq_factor, self.rope_high_freq_factor
        if not 0 < low < high < math.inf:
            raise FieldError(
                "rope_low_freq_factor", low,
                f"more than 0 and less than rope_high_freq_factor={high}",
            )  # fmt: skip
        if self.rope_original_length < 1:
            raise FieldError(
                "rope_original_length", self.rope_original_length, "at least 1"
            )
        if not 1 < self.rope_theta < math.inf:
            raise FieldError("rope_theta", self.rope_theta, "more than 1, finite")
        if not 0 <= self.norm_eps < math.inf:
            raise FieldError("norm_eps", self.norm_eps, "0 or more, finite")

    @property
    def queries_per_kv(self) -> int:
        """Number of query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def score_scale(self) -> float:
        """Factor of the attention scores."""
        return (self.query_pre_attn_scalar or self.head_dim) ** -0.5

    @property
    def windows(self) -> tuple[int, ...] | None:
        """Each layer's window in positions; None if no layer has a window."""
        if not self.sliding_window:
            return None
        return tuple(
            UNLIMITED
            if self.global_every and (layer + 1) % self.global_every == 0
            else self.sliding_window
            for layer in range(self.num_layers)
        )

    @property
    def num_params(self) -> int:
        """Number of parameters; tied embeddings count once."""
        return self._count(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Number of parameters without the experts that a token does not use."""
        return self._count(self.experts_per_token)

    def _count(self, experts: int) -> int:
        embed, mlp = self.embed_dim, self.mlp_dim
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        mlps = experts if self.num_experts else 1
        block = embed * (2 * q + 2 * kv) + 3 * embed * mlp * mlps
        block += (4 if self.norm_placement == "both" else 2) * embed
        block += embed * self.num_experts  # router
        if self.qk_norm:
            block += 2 * self.head_dim if self.qk_norm_over == "head" else q + kv
        block += (q + 2 * kv) * self.attention_bias + embed * self.attention_out_bias
        block += (2 * mlp + embed) * self.mlp_bias
        tables = 1 if self.tie_embeddings else 2
        return self.num_layers * block + tables * self.vocab_size * embed + embed


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The policy's decoder: its shape, dtype, initial and frozen parameters."""

    preset: Annotated[
        str, "name of a model shape, such as tiny or qwen3-8b", "kept"
    ] = "tiny"
    overrides: Annotated[
        dict[str, object], "fields of the model shape that replace the preset's", "kept"
    ] = dataclasses.field(default_factory=dict)
    init_from: Annotated[
        str | None,
        "whose parameters to start from: a run's directory, or a published model's, "
        "which has its own shape",
        "kept",
    ] = None
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"],
        "dtype of activations; parameters are float32",
        "kept",
    ] = "float32"
    freeze: Annotated[
        tuple[str, ...],
        "regular expressions; parameters whose path one is found in, such as embed, "
        "stay as they are, in the warm start too",
        "kept",
    ] = ()
