"""The check that rewards are binary: each is exactly 0 or 1, and none is rounded."""

import jax
import jax.numpy as jnp
import numpy as np


def settle(
    rewards: jax.Array | np.ndarray, mask: jax.Array | np.ndarray | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return which samples are correct, and check that rewards are 0 or 1.

    Args:
      rewards: (..., M) bool, int or float.
      mask: (..., M) bool, False on samples whose rewards are not checked; None checks
        all of them.

    Returns:
      A pair. First (..., M) bool, True on samples with reward 1. Second None where
      values are known; inside `jax.jit`, where they are not, (..., 1) bool, False on
      groups with a reward that is neither 0 nor 1 (None there too for bool rewards).

    Raises:
      ValueError: where values are known and a reward is neither 0 nor 1. The message
        names the first such reward.
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
    """Return whether values can be read here on the host.

    They cannot inside a transformation of JAX, or when other processes hold some.
    """
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
