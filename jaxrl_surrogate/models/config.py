"""The shape of a decoder. One dataclass covers the Llama, Qwen and Mistral families."""

import dataclasses
import math
from typing import Annotated, Literal

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.typed_fields import check_fields


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
    qk_norm: Annotated[bool, "RMSNorm on queries and keys, a head at a time"] = False
    attention_bias: Annotated[bool, "bias on the q, k, v projections"] = False
    mlp_bias: Annotated[bool, "bias on the three MLP projections"] = False
    tie_embeddings: Annotated[bool, "the output head is the embedding table"] = True
    rope_theta: Annotated[float, "base of the rotary frequencies"] = 1e4
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
        if not 0 <= self.norm_eps < math.inf:
            raise FieldError("norm_eps", self.norm_eps, "0 or more, finite")

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def windows(self) -> tuple[int, ...] | None:
        """Positions each layer sees back, or None where every layer sees all."""
        if not self.sliding_window:
            return None
        unlimited = 2**30
        return tuple(
            unlimited
            if self.global_every and (layer + 1) % self.global_every == 0
            else self.sliding_window
            for layer in range(self.num_layers)
        )

    @property
    def num_params(self) -> int:
        """Parameters, embeddings counted once when tied."""
        return self._count(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Parameters that a token meets: `num_params` less experts it does not use."""
        return self._count(self.experts_per_token)

    def _count(self, experts: int) -> int:
        embed, mlp = self.embed_dim, self.mlp_dim
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        mlps = experts if self.num_experts else 1
        block = embed * (2 * q + 2 * kv) + 3 * embed * mlp * mlps + 2 * embed
        block += embed * self.num_experts  # router
        block += 2 * self.head_dim * self.qk_norm
        block += (q + 2 * kv) * self.attention_bias
        block += (2 * mlp + embed) * self.mlp_bias
        tables = 1 if self.tie_embeddings else 2
        return self.num_layers * block + tables * self.vocab_size * embed + embed


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder."""

    preset: Annotated[str, "named shape", "kept"] = "tiny"
    overrides: Annotated[dict[str, object], "fields of the shape", "kept"] = (
        dataclasses.field(default_factory=dict)
    )
    init_from: Annotated[
        str | None, "run directory whose parameters to start from", "kept"
    ] = None
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"], "of activations; parameters are float32", "kept"
    ] = "float32"
