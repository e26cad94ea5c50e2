"""What counts as a binary reward: 0 or 1, and nothing is rounded to either."""

import jax
import jax.numpy as jnp
import numpy as np


def settle(
    rewards: jax.Array | np.ndarray, mask: jax.Array | np.ndarray | None
) -> tuple[jax.Array, jax.Array | None]:
    """Which samples are correct, of rewards that have to be 0 or 1.

    Args:
      rewards: (..., M) bool, int or float.
      mask: (..., M) bool, False on samples whose reward does not matter; or None.

    Returns:
      (..., M) bool, True on correct samples; and (..., 1) bool, False on groups with
      another reward, where values are not known (inside `jax.jit`), else None.

    Raises:
      ValueError: naming the first reward that is neither, where values are known.
    """
    if not _known(rewards) or not (mask is None or _known(mask)):
        rewards = jnp.asarray(rewards)
        if rewards.dtype == bool:
            return rewards, None
        binary = (rewards == 0) | (rewards == 1)
        if mask is not None:
            binary |= ~jnp.asarray(mask, bool)
        return rewards == 1, binary.all(-1, keepdims=True)
    values = np.asarray(rewards)
    if values.dtype != bool:
        other = (values != 0) & (values != 1)
        if mask is not None:
            other &= np.asarray(mask, bool)
        if other.any():
            _refuse(values, other)
    return jnp.asarray(values == 1), None


def _known(values):
    """Whether values can be looked at here: not inside a transformation of JAX."""
    return not isinstance(values, jax.core.Tracer) and getattr(
        values, "is_fully_addressable", True
    )


def _refuse(values, other):
    place = tuple(int(i) for i in np.argwhere(other)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    raise ValueError(
        f"rewards{where}={values[place]:g}: expected 0 (incorrect) or 1 (correct), as "
        "this is a rule of binary rewards. Take objectives.graded.layer_cake or "
        "objectives.graded.mean for graded rewards; objectives.graded.binary, or "
        "rewards >= 0.5, to count 0.5 and more as correct; a mask with a TableFamily "
        "for samples without a reward"
    )
