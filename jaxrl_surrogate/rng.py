"""Keys by position: a random number is a function of a seed and of where it is used.

Nothing in the package calls `jax.random.split` along a control-flow path. A key is
folded from the run's seed by a named stream and then by integers (step, prompt, sample,
token), so a draw does not depend on batch layout, device count, retries or what ran
before it.
"""

import zlib

import jax

from jaxrl_surrogate.errors import FieldError

Key = jax.Array


def stream_key(seed: int, stream: str, *positions: int | jax.Array) -> Key:
    """Return the key of a named stream of a run, folded by zero or more positions.

    Args:
      seed: the run's seed, `0 <= seed < 2**32`.
      stream: name of the consumer, such as "rollout", "init" or "evaluation". Two
        streams share no keys.
      *positions: integers (scalars, may be traced), folded in order.

    Returns:
      A typed key, shape ().
    """
    if not 0 <= seed < 2**32:
        raise FieldError("seed", seed, "an integer in [0, 2**32)")
    key = jax.random.key(seed)
    # A checksum of the name, not Python's hash: the same in every process and version.
    return fold(jax.random.fold_in(key, zlib.crc32(stream.encode())), *positions)


def fold(key: Key, *positions: int | jax.Array) -> Key:
    """Fold scalar positions into a key, in order."""
    for position in positions:
        key = jax.random.fold_in(key, position)
    return key


def sample_keys(key: Key, prompt_ids: jax.Array, num_samples: int) -> Key:
    """Return one key per (prompt, sample).

    Args:
      key: the key of this step's rollout stream; not consumed elsewhere.
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
