"""Pure functions of (config, params): initialise, prefill, run completions, decode.

The three passes are one computation. Prefill reads prompts and keeps their keys and
values; `forward_completions` runs whole completions on top of them, for training;
`decode_token` does the same a token at a time against a cache, for sampling. A prompt
is computed once for its M completions in all of them.
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
    """Graph definitions and abstract states of the two module kinds."""
    ends, block = nnx.eval_shape(
        lambda: (Ends(config, rngs=nnx.Rngs(0)), Block(config, rngs=nnx.Rngs(0)))
    )
    return nnx.split(ends), nnx.split(block)


def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Draw parameters; jit it with `out_shardings` so that they are born sharded.

    Args:
      config: the decoder's shape.
      key: a typed key, consumed.

    Returns:
      Nested dict: "embedding" (V, D), "final_norm", "head" (V, D) unless tied, and
      "layers", whose leaves lead with the layer axis L. All float32.
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
    """Shapes and dtypes of `init_params`, without computing them."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def logical_axes(config: DecoderConfig) -> Params:
    """The logical axis names of every parameter: `init_params`' dict of tuples."""
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
    """Read prompts.

    Args:
      config: static.
      params: as from `init_params`, or with "layers" a tuple (see `unstack_layers`).
      tokens: (G, P) int32, padded on the right.
      lengths: (G,) int32.
      remat: recompute each block in the backward pass instead of storing it.

    Returns:
      Hidden states of each prompt's last token, (G, D), and the prompts' keys and
      values for all layers.
    """
    offsets = jnp.zeros_like(lengths)

    def see_prompt(q, new, window, _):
        return _attend(config, q, new, 0, window, None), new

    hidden, kept = _run(
        config, params, tokens[:, None], offsets, 0, see_prompt, None, remat
    )
    last = jnp.take_along_axis(hidden[:, 0], (lengths - 1)[:, None, None], axis=1)
    # A prompt has no sample axis: drop the one that blocks work with.
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
    """Run whole completions on top of their prompts.

    Args:
      config: static.
      params: as for `prefill`.
      tokens: (G, M, T) int32; causal, so what lies past a completion's end only
        reaches positions past its end.
      prefix: what `prefill` returned for the G prompts.
      remat: recompute each block in the backward pass.

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
    """Run one token of every completion and add it to the cache.

    Args:
      config: static.
      params: as for `prefill`; with "layers" a tuple, `cache` and `prefix.cache` are
        tuples as well and the layers are unrolled.
      tokens: (G, M) int32, the completions' tokens at `position`.
      position: scalar int32, the same for all rows.
      prefix: what `prefill` returned.
      cache: keys and values of completions, with room for S positions.
      kv_len: positions of the cache that are looked at, `position` among them; static.
        A tuple's are looked at whole.

    Returns:
      (G, M, D) outputs of the last block and the cache with `position` written.
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

    # The cache is carried whole and written in place: were each layer's part scanned
    # in and out, every token would copy all of it.
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
    """(..., D) outputs of the last block to (..., V) float32 logits."""
    return _ends(config, params).logits(hidden)


def unstack_layers(params: Params) -> Params:
    """Split the stacked layers into a tuple, for loops that unroll them.

    Decoding on a CPU reads each weight matrix once per token; a slice of a stacked
    array would be copied before each use.
    """
    stacked = params["layers"]
    num_layers = jax.tree.leaves(stacked)[0].shape[0]
    layers = tuple(
        jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(num_layers)
    )
    return {**params, "layers": layers}


def cast(params: Params, dtype: Literal["float32", "bfloat16"]) -> Params:
    """Parameters as computations read them, for loops that read them many times.

    All in the compute dtype but the scales of norms, which multiply in float32: rounded
    here and not in training, they would make the sampler another policy.
    """

    def narrow(path, leaf):
        return leaf if path[-1].key == "scale" else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(narrow, params)


def shard_params(config: DecoderConfig, params: Params) -> Params:
    """Stacked parameters as computations hold them (see `models.layout`), all at once.

    For loops that read them many times: what is gathered is gathered before the loop.
    """
    return jax.tree.map(
        lambda leaf, axes: constrain(leaf, *axes), params, logical_axes(config)
    )


def shard_ends(config: DecoderConfig, params: Params) -> Params:
    """`shard_params` of all but the layers, which are gathered as they run."""
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
    """Run all blocks over tokens (G, M, T) that start at `offsets + first`.

    `see(q, new, window, layer)` returns (attention output, what to keep of the layer);
    with `carried` it takes the carried value last and returns it instead.
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
