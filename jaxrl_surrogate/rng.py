"""PRNG keys that depend only on the run's seed and on where a random number is used.

The package never calls `jax.random.split` along a control-flow path. A key is made by
folding the name of a stream and then integers (step, prompt, sample, token) into the
run's seed. So a draw does not depend on the order of a batch, the number of devices,
retries, or what ran before it.
"""

import zlib

import jax

from jaxrl_surrogate.errors import FieldError

Key = jax.Array


def stream_key(seed: int, stream: str, *positions: int | jax.Array) -> Key:
    """Return the key of a run's named stream, with zero or more positions folded in.

    Args:
      seed: the run's seed, `0 <= seed < 2**32`.
      stream: name of what uses the key, such as "rollout", "init" or "evaluation".
        Streams of different names share no keys.
      *positions: integers (scalars, may be traced), folded in order.

    Returns:
      A typed key, shape ().
    """
    if not 0 <= seed < 2**32:
        raise FieldError("seed", seed, "an integer in [0, 2**32)")
    key = jax.random.key(seed)
    # CRC-32 of the name is the same in every process and version; Python's hash is not.
    return fold(jax.random.fold_in(key, zlib.crc32(stream.encode())), *positions)


def fold(key: Key, *positions: int | jax.Array) -> Key:
    """Fold scalar positions into a key, in order."""
    for position in positions:
        key = jax.random.fold_in(key, position)
    return key


def sample_keys(key: Key, prompt_ids: jax.Array, num_samples: int) -> Key:
    """Return one key per (prompt, sample).

    Args:
      key: the key of this step's rollout stream; it must not be used elsewhere.
      prompt_ids: (G,) uint32, the prompts' positions in the run's prompt stream.
      num_samples: M, samples of each prompt.

    Returns:
      (G, M) typed keys. Row g depends on `prompt_ids[g]` alone, not on g.
    """
    samples = jax.numpy.arange(num_samples, dtype=jax.numpy.uint32)
    per_prompt = jax.vmap(jax.random.fold_in, (None, 0))(key, prompt_ids)
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
        per_prompt, samples
    )
