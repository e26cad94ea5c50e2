"""Pure functions of (config, params): initialise, prefill, run completions, decode.

`prefill` reads prompts and returns their keys and values. `forward_completions` runs
whole completions on top of them, for training. `decode_token` does the same one token
at a time with a cache, for sampling. All three compute the same model, and a prompt is
computed once for its M completions.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl_surrogate import rng
from jaxrl_surrogate.models.attention import Prefix, attend
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.decoder import Block, Ends
from jaxrl_surrogate.models.key_values import KeyValues
from jaxrl_surrogate.models.layout import constrain
from jaxrl_surrogate.models.rotary import frequencies

Params = dict  # nested dict of float32 arrays; the leaves of "layers" lead with L


@functools.cache
def _abstract(config: DecoderConfig):
    """Return (graph definition, abstract state) of `Ends` and of `Block`."""
    ends, block = nnx.eval_shape(
        lambda: (Ends(config, rngs=nnx.Rngs(0)), Block(config, rngs=nnx.Rngs(0)))
    )
    return nnx.split(ends), nnx.split(block)


def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Draw initial parameters.

    Jit this function with `out_shardings` to create the parameters sharded.

    Args:
      config: the decoder's shape.
      key: a typed random key.

    Returns:
      Nested dict of float32 arrays: "embedding" (V, D), "final_norm", "head" (V, D)
      unless embeddings are tied, and "layers", whose leaves have a leading layer axis.
    """

    def ends(key):
        return nnx.to_pure_dict(nnx.state(Ends(config, rngs=nnx.Rngs(params=key))))

    def block(key):
        return nnx.to_pure_dict(nnx.state(Block(config, rngs=nnx.Rngs(params=key))))

    layer_keys = jax.vmap(functools.partial(rng.fold, rng.fold(key, 1)))(
        jnp.arange(config.num_layers)
    )
    return {**ends(rng.fold(key, 0)), "layers": jax.vmap(block)(layer_keys)}


def abstract_params(config: DecoderConfig) -> Params:
    """Return the shapes and dtypes of `init_params` without computing parameters."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def logical_axes(config: DecoderConfig) -> Params:
    """Return the nested dict of `init_params` with tuples of logical axes as leaves."""
    (_, ends), (_, block) = _abstract(config)

    def axes(state, *leading):
        return nnx.to_pure_dict(
            jax.tree.map(
                lambda param: (*leading, *param.get_metadata()["logical_axes"]),
                state,
                is_leaf=lambda node: isinstance(node, nnx.Variable),
            )
        )

    return {**axes(ends), "layers": axes(block, "layers")}


def prefill(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    remat: bool = False,
) -> tuple[jax.Array, Prefix]:
    """Run the decoder over prompts.

    Args:
      config: the decoder's shape; static.
      params: from `init_params`, or with a tuple of layers (see `unstack_layers`).
      tokens: (G, P) int32, padded on the right.
      lengths: (G,) int32.
      remat: recompute each block in the backward pass instead of storing activations.

    Returns:
      Outputs of the last block at each prompt's last token, (G, D), and the prompts'
      keys and values for all layers.
    """
    offsets = jnp.zeros_like(lengths)

    def see_prompt(q, new, window, _):
        return _attend(config, q, new, 0, window, None), new

    hidden, kept = _run(
        config, params, tokens[:, None], offsets, 0, see_prompt, None, remat
    )
    last = jnp.take_along_axis(hidden[:, 0], (lengths - 1)[:, None, None], axis=1)
    # Blocks need a sample axis, which prompts do not have: drop it.
    cache = jax.tree.map(lambda leaf: jnp.squeeze(leaf, -4), kept)
    return last[:, 0], Prefix(cache, lengths)


def forward_completions(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    prefix: Prefix,
    *,
    remat: bool = False,
) -> jax.Array:
    """Run the decoder over whole completions that follow their prompts.

    Args:
      config: the decoder's shape; static.
      params: as for `prefill`.
      tokens: (G, M, T) int32. Attention is causal, so tokens past a completion's end
        only affect positions past its end.
      prefix: from `prefill` of the G prompts.
      remat: recompute each block in the backward pass instead of storing activations.

    Returns:
      (G, M, T, D) outputs of the last block, before the final norm.
    """

    def see_both(q, new, window, layer_cache):
        prompt = Prefix(layer_cache, prefix.lengths)
        return _attend(config, q, new, 0, window, prompt), None

    return _run(
        config, params, tokens, prefix.lengths, 0, see_both, prefix.cache, remat
    )[0]


def decode_token(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    position: jax.Array,
    prefix: Prefix,
    cache: KeyValues | tuple[KeyValues, ...],
    kv_len: int,
) -> tuple[jax.Array, KeyValues | tuple[KeyValues, ...]]:
    """Run the decoder over one token of every completion and add it to the cache.

    Args:
      config: the decoder's shape; static.
      params: as for `prefill`. With a tuple of layers, `cache` and `prefix.cache` are
        tuples as well, and the layers are unrolled.
      tokens: (G, M) int32, the completions' tokens at `position`.
      position: scalar int32, the same for all completions.
      prefix: from `prefill` of the G prompts.
      cache: keys and values of completions, with space for S positions.
      kv_len: number of cache positions that attention reads, which must include
        `position`; static. It is not used with a tuple of layers, whose caches are read
        completely.

    Returns:
      (G, M, D) outputs of the last block, and the cache with `position` written.
    """
    if isinstance(cache, tuple) and not isinstance(cache, KeyValues):

        def see_cached(q, new, window, layer):
            own = layer[0].write(new, position)
            prompt = Prefix(layer[1], prefix.lengths)
            return _attend(config, q, own, position, window, prompt), own

        per_layer = tuple(zip(cache, prefix.cache, strict=True))
        hidden, cache = _run(
            config, params, tokens[..., None], prefix.lengths, position, see_cached,
            per_layer, False,
        )  # fmt: skip
        return hidden[:, :, 0], cache

    # The scan carries the whole cache and writes it in place. If each layer's part were
    # an input and an output of the scan, every token would copy the whole cache.
    def see_carried(q, new, window, layer, cache):
        index, layer_prefix = layer
        cache = cache.write(new, position, index)
        own = cache.layer(index, kv_len)
        prompt = Prefix(layer_prefix, prefix.lengths)
        return _attend(config, q, own, position, window, prompt), cache

    hidden, cache = _run(
        config, params, tokens[..., None], prefix.lengths, position, see_carried,
        (jnp.arange(config.num_layers), prefix.cache), False, carried=cache,
    )  # fmt: skip
    return hidden[:, :, 0], cache


def output_logits(
    config: DecoderConfig, params: Params, hidden: jax.Array
) -> jax.Array:
    """Compute logits (..., V) float32 from outputs of the last block (..., D)."""
    return _ends(config, params).logits(hidden)


def unstack_layers(params: Params) -> Params:
    """Split the stacked layers into a tuple, for loops that unroll them.

    Decoding reads each weight matrix once per token. On a CPU, a slice of a stacked
    array would be copied before each use.
    """
    stacked = params["layers"]
    num_layers = jax.tree.leaves(stacked)[0].shape[0]
    layers = tuple(
        jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(num_layers)
    )
    return {**params, "layers": layers}


def cast(params: Params, dtype: Literal["float32", "bfloat16"]) -> Params:
    """Cast parameters to the compute dtype, for loops that read them many times.

    The scales of norms are not cast, because norms multiply by them in float32. If they
    were rounded here and not in training, the sampler's policy would be another one.
    """

    def narrow(path, leaf):
        return leaf if path[-1].key == "scale" else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(narrow, params)


def shard_params(config: DecoderConfig, params: Params) -> Params:
    """Constrain all stacked parameters to the shardings that computations use.

    A loop that reads parameters many times calls this first, so that they are gathered
    once before the loop. See `models.layout`.
    """
    return jax.tree.map(
        lambda leaf, axes: constrain(leaf, *axes), params, logical_axes(config)
    )


def shard_ends(config: DecoderConfig, params: Params) -> Params:
    """Apply `shard_params` to all parameters except the layers.

    Each layer is gathered when it runs.
    """
    axes = logical_axes(config)
    ends = {
        name: jax.tree.map(
            lambda leaf, axes: constrain(leaf, *axes), params[name], axes[name]
        )
        for name in axes
        if name != "layers"
    }
    return {**ends, "layers": params["layers"]}


def _ends(config, params):
    (graph, _), _ = _abstract(config)
    return nnx.merge(graph, {k: v for k, v in params.items() if k != "layers"})


def _attend(config, q, own, first, window, prefix):
    scale, softcap = config.score_scale, config.attention_softcap
    return attend(q, own, first, window, prefix, scale=scale, softcap=softcap)


def _run(config, params, tokens, offsets, first, see, per_layer, remat, carried=None):
    """Run all blocks over tokens (G, M, T) that start at position `offsets + first`.

    `see(q, new, window, layer)` returns (attention output, value to keep of the layer).
    With `carried`, it takes the carried value as an additional last argument and
    returns the new carried value in place of the value to keep.

    Returns:
      (G, M, T, D) outputs of the last block, and the values kept of all layers or the
      last carried value.
    """
    _, (graph, _) = _abstract(config)
    steps = first + jnp.arange(tokens.shape[-1], dtype=jnp.int32)
    positions = offsets[:, None, None] + steps[None, None]
    x = _ends(config, params).embed(tokens)

    def block(x, layer_params, window, layer, *carried):
        return nnx.merge(graph, layer_params)(
            x,
            positions,
            frequencies(config, window),
            lambda q, new: see(q, new, window, layer, *carried),
        )

    if remat:
        block = jax.checkpoint(block)
    layers, windows = params["layers"], config.windows
    if isinstance(layers, tuple):
        kept = []
        for index, layer_params in enumerate(layers):
            window = None if windows is None else windows[index]
            layer = None if per_layer is None else per_layer[index]
            x, keep = block(x, layer_params, window, layer)
            kept.append(keep)
        return x, tuple(kept)
    windows = None if windows is None else jnp.asarray(windows)
    if carried is not None:

        def scan_carried(carry, scanned):
            x, carried = carry
            return block(x, *scanned, carried), None

        return jax.lax.scan(scan_carried, (x, carried), (layers, windows, per_layer))[0]
    return jax.lax.scan(
        lambda x, scanned: block(x, *scanned), x, (layers, windows, per_layer)
    )
