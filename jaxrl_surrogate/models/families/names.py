"""Names and layouts of the checkpoint tensors that store our parameters."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxrl_surrogate.models.config import DecoderConfig

Path = tuple[str, ...]  # of a parameter in the nested dict of `init_params`


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """The tensors of a checkpoint that make up one parameter.

    A parameter of the layers is a stack of one tensor per layer, and a parameter of
    experts is a stack over layers and experts. Its other axes are transposed and
    merged in the stored tensor:

    >>> queries = HFTensor("q_proj.weight", axes=((1, 2), (0,)))
    >>> queries.stored_shape((8, 4, 2))  # (D, N, H)
    (8, 8)

    Attributes:
      name: the tensor's name, with {layer} and {expert} if there is one for each.
      axes: for each axis of the stored tensor, the axes of our parameter (without
        stacks) that it merges, the slowest one first.
    """

    name: str
    axes: tuple[tuple[int, ...], ...]

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the stored tensor's shape, from our shape without stacks."""
        sizes = []
        for group in self.axes:
            size = 1
            for axis in group:
                size *= shape[axis]
            sizes.append(size)
        return tuple(sizes)

    def stored_name(self, position: tuple[int, ...]) -> str:
        """Return the name of the tensor at a position of our stacks (layer, expert)."""
        return self.name.format(
            **dict(zip(("layer", "expert"), position, strict=False))
        )

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Return our array (without stacks) in the layout of the stored tensor."""
        return np.ascontiguousarray(
            array.transpose(self.order).reshape(self.stored_shape(array.shape))
        )

    @property
    def order(self) -> tuple[int, ...]:
        """Our axes in the order in which they are stored."""
        return tuple(axis for group in self.axes for axis in group)

    @property
    def num_stacks(self) -> int:
        """Number of leading axes of our parameter that stack stored tensors."""
        return ("{layer}" in self.name) + ("{expert}" in self.name)


_MATRIX = ((1,), (0,))  # torch keeps (out, in)
_INTO_HEADS = ((1, 2), (0,))
_FROM_HEADS = ((2,), (0, 1))
_VECTOR = ((0,),)
_HEADS = ((0, 1),)


def tensor_names(config: DecoderConfig, norms: Mapping[str, str]) -> dict:
    """Return the tensors of every parameter, in the order in which exports write them.

    Args:
      config: the decoder, which decides the parameters.
      norms: from our names of a layer's norms to theirs.

    Returns:
      A dict from paths in the nested dict of `init_params` to `HFTensor`.
    """
    c, found = config, {("embedding",): HFTensor("model.embed_tokens.weight", _SAME)}

    def layer(ours: str, theirs: str, axes) -> None:
        name = f"model.layers.{{layer}}.{theirs}"
        found["layers", *ours.split("/")] = HFTensor(name, axes)

    for ours, theirs in norms.items():
        layer(f"{ours}/scale", f"{theirs}.weight", _VECTOR)
    for letter in "qkv":
        ours, theirs = f"attention/{letter}", f"self_attn.{letter}_proj"
        layer(f"{ours}/kernel", f"{theirs}.weight", _INTO_HEADS)
        if c.attention_bias:
            layer(f"{ours}/bias", f"{theirs}.bias", _HEADS)
    layer("attention/out/kernel", "self_attn.o_proj.weight", _FROM_HEADS)
    if c.attention_out_bias:
        layer("attention/out/bias", "self_attn.o_proj.bias", _VECTOR)
    if c.qk_norm:
        axes = _VECTOR if c.qk_norm_over == "head" else _HEADS
        for letter in "qk":
            name = f"{letter}_norm"
            layer(f"attention/{name}/scale", f"self_attn.{name}.weight", axes)
    if c.num_experts:
        layer("mlp/router", "mlp.gate.weight", _MATRIX)
    for part in ("gate", "up", "down"):
        if c.num_experts:
            layer(f"mlp/{part}", f"mlp.experts.{{expert}}.{part}_proj.weight", _MATRIX)
            continue
        layer(f"mlp/{part}/kernel", f"mlp.{part}_proj.weight", _MATRIX)
        if c.mlp_bias:
            layer(f"mlp/{part}/bias", f"mlp.{part}_proj.bias", _VECTOR)
    found["final_norm", "scale"] = HFTensor("model.norm.weight", _VECTOR)
    if not c.tie_embeddings:
        found["head",] = HFTensor("lm_head.weight", _SAME)
    return found


_SAME = ((0,), (1,))
