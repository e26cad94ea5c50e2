"""Digests of the arrays that a step computed, so that runs can be compared.

A row of `digests.jsonl` holds, for one step, a digest of every array of every phase:

    rollout       prompts, and completions with the sampler's log-probabilities, the
                  mask of tokens that the policy sampled, and the policy's step
    verification  rewards, and which of them count
    update        the weight that each sample was given
    state         parameters, optimizer state and counters after the update

Arrays on the host are hashed with SHA-256, of which 128 bits are kept. The state is
hashed on its devices in one pass (`fingerprint`), because copying it to the host would
take longer than the step itself.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.batch import Batch
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.state import TrainState

Digests = dict[str, dict[str, str]]  # from phase and array name to hexadecimal digits

PHASES = ("rollout", "verification", "update", "state")  # in order of computation

# Odd constants from the golden ratio and from the mixing functions of MurmurHash3.
_GOLDEN = 0x9E3779B9
_MIX = (0x85EBCA6B, 0xC2B2AE35)
_LANES = (0xCC9E2D51, 0x1B873593, 0xE6546B65)


def batch_digests(batch: Batch) -> Digests:
    """Return digests of the phases "rollout" and "verification" of a NumPy batch."""
    prompts, completions = batch.prompts, batch.completions
    return {
        "rollout": {
            "prompt_ids": host_digest(prompts.ids),
            "prompt_tokens": host_digest(prompts.tokens),
            "prompt_lengths": host_digest(prompts.lengths),
            "tokens": host_digest(completions.tokens),
            "lengths": host_digest(completions.lengths),
            "truncated": host_digest(completions.truncated),
            "sampler_logprobs": host_digest(completions.sampler_logprobs),
            "loss_mask": host_digest(completions.loss_mask),
            "policy_step": host_digest(completions.policy_step),
        },
        "verification": {
            "rewards": host_digest(batch.rewards),
            "reward_mask": host_digest(batch.reward_mask),
        },
    }


def update_digests(weights: np.ndarray) -> Digests:
    """Return digests of the phase "update", from the (G, M) weights of samples."""
    return {"update": {"weights": host_digest(weights)}}


def state_digests(state: TrainState) -> Digests:
    """Return digests of the phase "state", one for each array of the train state.

    Equal values have equal digests on every mesh, because sums of integers do not
    depend on the order of their terms.
    """
    return {"state": named_digests(state)}


def named_digests(tree: Any) -> dict[str, str]:
    """Return `device_digests` of a tree's arrays by path, such as "layers/mlp/up"."""
    leaves = jax.tree.leaves_with_path(tree)
    found = device_digests([leaf for _, leaf in leaves])
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): digest
        for (path, _), digest in zip(leaves, found, strict=True)
    }


def policy_digest(params: Any) -> str:
    """Return one hexadecimal digest of all parameters, the same on every mesh."""
    found = device_digests(jax.tree.leaves(params))
    return hashlib.sha256("".join(found).encode()).hexdigest()[:32]


def device_digests(arrays: list[jax.Array | np.ndarray]) -> list[str]:
    """Return the `fingerprint` of each array in hexadecimal, computed on its devices.

    Arrays in host memory (`training.offload`) are copied to the devices one after the
    other. Those with three or more axes, such as stacked layers, are copied one row of
    their first axis at a time.
    """
    held = [
        isinstance(array, jax.Array) and array.sharding.memory_kind == offload.HOST
        for array in arrays
    ]
    resident = [a for a, host in zip(arrays, held, strict=True) if not host]
    found = iter(jax.device_get(_fingerprints(resident)))
    words = [
        jax.device_get(_fingerprint_of_host(array)) if host else next(found)
        for array, host in zip(arrays, held, strict=True)
    ]
    return [word.tobytes().hex() for word in words]


def host_digest(array: Any) -> str:
    """Return 128 bits of the SHA-256 of dtype, shape and bytes, in hexadecimal."""
    array = np.asarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    body = np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(head + body).hexdigest()[:32]


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in hexadecimal.

    A value that was written as JSON and read back has the same digest.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fingerprint(array: jax.Array) -> jax.Array:
    """Return a 128-bit hash of the bits of an array and the positions of its entries.

    Let w_i be the bits of entry i as an integer, k_i a key derived from the position i,
    and f a bijection that mixes 32 bits well. Word j of the result is the sum over i,
    modulo 2^32, of

        f(w_i ^ k_i) r_ij,    r_i0 = 1, r_ij an odd integer derived from the position

    A change of one entry always changes all four words, because f and the product with
    an odd number are bijections. Accidental changes of several entries cancel in all
    four words with a probability of about 2^-128. This is not a cryptographic hash.

    Args:
      array: any shape, of a dtype of 8, 16 or 32 bits, or bool. It may be traced and
        may be sharded; only the sums are communicated between devices.

    Returns:
      (4,) uint32.

    Raises:
      ValueError: a dtype of another width.
    """
    return _sums(array, jnp.uint32(0), array.size)


def _sums(part: jax.Array, first: jax.Array, size: int) -> jax.Array:
    """Return the four sums of `fingerprint` over a part of an array.

    The part has rows `first`, `first` + 1, ... of an array of `size` entries. The sums
    of all parts of an array add up to its fingerprint.
    """
    key = _mixed(_positions(part.shape, first, size) + jnp.uint32(_GOLDEN))
    mixed = _mixed(_words(part) ^ key)
    terms = [mixed, *(mixed * (key * jnp.uint32(odd) | 1) for odd in _LANES)]
    zero = jnp.uint32(0)
    # One reduction of four operands: four reductions would mix everything four times.
    sums = jax.lax.reduce(
        terms,
        [zero] * len(terms),
        lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
        tuple(range(part.ndim)),
    )
    return jnp.stack(sums)


def first_difference(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> tuple[str, list[str]] | None:
    """Return the first phase that differs with the names of its arrays that differ.

    Phases that only one side has are not compared. An array that only one side has
    counts as different. The result is None if all compared phases agree.
    """
    for phase in PHASES:
        if phase not in old or phase not in new:
            continue
        names = dict.fromkeys([*old[phase], *new[phase]])
        wrong = [n for n in names if old[phase].get(n) != new[phase].get(n)]
        if wrong:
            return phase, wrong
    return None


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> list[jax.Array]:
    return [fingerprint(leaf) for leaf in leaves]


@jax.jit
def _fingerprint_of_host(array: jax.Array) -> jax.Array:
    """Return the `fingerprint` of an array in host memory."""

    def fetched(part):
        return jax.device_put(part, jax.memory.Space.Device)

    # The first axis of a matrix may be sharded, and has too many rows for a loop.
    if array.ndim < 3:
        return fingerprint(fetched(array))

    def add(total, row):
        part = jax.lax.dynamic_slice_in_dim(array, row, 1)
        return total + _sums(fetched(part), row, array.size), None

    rows = jnp.arange(array.shape[0], dtype=jnp.uint32)
    return jax.lax.scan(add, jnp.zeros(4, jnp.uint32), rows)[0]


def _words(array: jax.Array) -> jax.Array:
    """Return the bits of each entry as uint32."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    width = array.dtype.itemsize
    if width not in (1, 2, 4):
        raise ValueError(
            f"dtype={array.dtype}: expected entries of 8, 16 or 32 bits, or bool"
        )
    kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
    return jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32)


def _positions(shape: tuple[int, ...], first: jax.Array, size: int) -> jax.Array:
    """Return the position of each entry of a part of an array, in row-major order.

    Args:
      shape: the shape of the part.
      first: the row of the whole array with which the part begins.
      size: the number of entries of the whole array.
    """
    out, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        row = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        if axis == 0:
            row = row + first
        out = out + row * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    if size > 2**32:  # positions overflow 32 bits, so the row is mixed in
        out = out ^ _mixed(jax.lax.broadcasted_iota(jnp.uint32, shape, 0) + first)
    return out


def _mixed(words: jax.Array) -> jax.Array:
    """Mix 32-bit words by the bijection of MurmurHash3: each bit affects all bits."""
    words = (words ^ (words >> 16)) * jnp.uint32(_MIX[0])
    words = (words ^ (words >> 13)) * jnp.uint32(_MIX[1])
    return words ^ (words >> 16)
