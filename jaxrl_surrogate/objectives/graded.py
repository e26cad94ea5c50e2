"""Graded rewards: weights from the tables of binary methods that keep an objective.

A table weighs samples that are correct or incorrect. Two ways to apply it to rewards of
more levels have an objective, at every group size:

  layer_cake  Each level defines a binary reward: is the reward at least that level? The
              weights are the sum of the table's weights of all levels, each times the
              step from the level below. They ascend J = int h_M(P(r > x)) dx, a mean
              of r under distorted probabilities. For pass@k weights, J is the expected
              best of k.
  mean        A reward in [0, 1] is the probability that a coin calls the sample
              correct. The mean weights over all coins ascend h_M(E r).

On binary rewards both give the weights of the table. Formulas for binary rewards that
are applied to graded ones directly have in general no objective: GRPO's division by the
standard deviation has none on three levels (`curl.circulation` tests any function). The
layer-cake weights of pass@k estimators are those of PKPO for continuous rewards (arXiv
2505.15201, eqs. 19, 29, 33). Those of other methods are derived here.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import unknown
from jaxrl_surrogate.objectives.surrogate import Surrogate
from jaxrl_surrogate.objectives.weight_table import (
    Array,
    TableFamily,
    WeightTable,
    on_device,
)

RewardMode = Literal["binary", "layer_cake", "mean"]  # names that `get` knows


def layer_cake(
    tables: WeightTable | TableFamily, rewards: Array, mask: Array | None = None
) -> jax.Array:
    """Return the weights of graded rewards as a sum over their levels.

    With the rewards of a group in ascending order r_(1) .. r_(M) and r_(0) = 0:

        Z_i = sum_j (r_(j) - r_(j-1)) Z_i(correct: the samples with r >= r_(j))

    plus (1 - r_(M)) times the weights of an all-incorrect group, which are 0 for nearly
    all methods. Rewards may be any real numbers. The part of the weights that comes
    from all-correct and all-incorrect groups is the same for all samples of a group and
    changes no mean update. Each group costs one sort and two running sums.

    Args:
      tables: a table, or a family if samples may be dropped.
      rewards: (..., M) bool, int or float.
      mask: (..., M) bool, False on samples that are dropped; None drops none.

    Returns:
      (..., M) float in the type of the tables on the device; 0 on dropped samples.

    Raises:
      ValueError: if groups have another size than the tables, if the mask has another
        shape than the rewards, or if a mask is given with a single table.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> print(layer_cake(advantages.table("rloo", 3), np.array([0.0, 0.5, 1.0])))
    [-0.75  0.    0.75]
    """
    return _map(_layer_cake, tables, rewards, mask)


def mean(
    tables: WeightTable | TableFamily, rewards: Array, mask: Array | None = None
) -> jax.Array:
    """Return the mean weights when each reward is a probability of being correct.

    Z_i = r_i E[b_S] + (1 - r_i) E[a_S], where S counts the other samples that
    independent coins with probabilities r_j call correct. It costs O(M^3) a group.

    Args:
      tables: a table, or a family if samples may be dropped.
      rewards: (..., M) in [0, 1]; rewards outside are clipped to it.
      mask: (..., M) bool, False on samples that are dropped; None drops none.

    Returns:
      (..., M) float in the type of the tables on the device; 0 on dropped samples.

    Raises:
      ValueError: as `layer_cake`.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> table = advantages.table("pass_at_k", 2, k=2)
    >>> print(mean(table, np.array([0.5, 1.0])))
    [0. 1.]
    """
    return _map(_mean, tables, rewards, mask)


def binary(
    tables: WeightTable | TableFamily, rewards: Array, mask: Array | None = None
) -> jax.Array:
    """Return the tables' weights when rewards of 0.5 and more count as correct.

    Args:
      tables: a table, or a family if samples may be dropped.
      rewards: (..., M) bool, int or float.
      mask: (..., M) bool, False on samples that are dropped; None drops none.

    Returns:
      (..., M) float, 0 on dropped samples. The kept samples of a group get NaN if any
      of their rewards is NaN.

    Raises:
      ValueError: if groups have another size than the tables, or if a mask is given
        with a single table.
    """
    rewards = jnp.asarray(rewards)
    correct = rewards >= 0.5
    if isinstance(tables, TableFamily):
        weights = tables(correct, mask)
    else:
        _refuse_mask(mask)
        weights = tables(correct)
    if not jnp.issubdtype(rewards.dtype, jnp.floating):
        return weights
    kept = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask, bool)
    unknown = (jnp.isnan(rewards) & kept).any(-1, keepdims=True)
    return jnp.where(unknown & kept, jnp.nan, weights)


REWARD_MODES = {"binary": binary, "layer_cake": layer_cake, "mean": mean}


def get(name: str):
    """Return the function of a reward mode: "binary", "layer_cake" or "mean".

    Raises:
      ValueError: for an unknown name.
    """
    if name not in REWARD_MODES:
        raise unknown("rewards", name, REWARD_MODES)
    return REWARD_MODES[name]


def layer_cake_objective(
    surrogate: Surrogate, levels: Sequence[float], probabilities: Array
) -> Array:
    """Return J = sum_j (x_j - x_(j-1)) h(P(r >= x_j)), x_0 = 0.

    This is the objective that `layer_cake` ascends.

    Args:
      surrogate: h with h(0) = 0, such as `induced_surrogate` of the table.
      levels: (L,) rewards, ascending.
      probabilities: (L,) float, the probability of each level; NumPy or JAX.

    Returns:
      A scalar, NumPy or JAX like the probabilities.
    """
    steps = np.diff(np.asarray(levels, np.float64), prepend=0.0)
    return (steps * surrogate.value(probabilities[::-1].cumsum()[::-1])).sum()


def _layer_cake(wrong, right, rewards, mask):
    size, kept = len(rewards), mask.sum(dtype=jnp.int32)
    level = jnp.arange(size, dtype=jnp.int32)
    # Dropped samples sort to the end, after the last level.
    ordered = jnp.sort(jnp.where(mask, rewards, jnp.inf))
    steps = jnp.diff(ordered, prepend=jnp.zeros_like(ordered[:1]))
    steps = jnp.where(level < kept, steps, 0)
    # At level j, from 0, kept - j samples are correct; none is incorrect at level 0.
    if_right = steps * right[jnp.maximum(kept - 1 - level, 0)]
    if_wrong = steps * wrong[jnp.clip(kept - level, 0, size - 1)]
    below = jnp.cumsum(if_right)
    above = jnp.cumsum(if_wrong[::-1])[::-1] - if_wrong
    beyond = (1 - ordered[jnp.maximum(kept - 1, 0)]) * wrong[0]
    # Equal rewards all read the last of their places, as running sums may round
    # differently from place to place.
    place = jnp.searchsorted(ordered, rewards, side="right", method="compare_all") - 1
    return (below + above)[place] + beyond


def _mean(wrong, right, rewards, mask):
    # A dropped sample is never correct.
    chance = jnp.where(mask, jnp.clip(rewards, 0, 1), 0)
    size = len(rewards)

    def toss(counts, coin):
        """Return (M, M): for each sample, P(count) among the others tossed so far."""
        owner, one = coin
        more = jnp.pad(counts[:, :-1], [(0, 0), (1, 0)])
        tossed = counts * (1 - one) + more * one
        return jnp.where((jnp.arange(size) == owner)[:, None], counts, tossed), None

    none = jnp.zeros((size, size), chance.dtype).at[:, 0].set(1)
    counts, _ = jax.lax.scan(toss, none, (jnp.arange(size), chance))
    return chance * (counts @ right) + (1 - chance) * (counts @ wrong)


def _map(compute_advantages, tables, rewards, mask):
    """Apply a function of one group to all groups, each with the table of its size."""
    family = isinstance(tables, TableFamily)
    if not family:
        _refuse_mask(mask)
    size = tables.group_size
    rewards = jnp.asarray(rewards)
    if rewards.ndim == 0 or rewards.shape[-1] != size:
        raise ValueError(
            f"rewards of shape {rewards.shape}: expected groups of {size}, as the "
            "tables are for"
        )
    mask = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape != rewards.shape:
        raise ValueError(
            f"mask: expected the shape of rewards, {rewards.shape}, got {mask.shape}"
        )
    wrong, right = on_device(tables.incorrect), on_device(tables.correct)

    def group(rewards, mask):
        row = jnp.maximum(mask.sum(dtype=jnp.int32) - 1, 0)
        rows = (wrong[row], right[row]) if family else (wrong, right)
        return jnp.where(mask, compute_advantages(*rows, rewards, mask), 0)

    groups = rewards.astype(right.dtype).reshape(-1, size), mask.reshape(-1, size)
    return jax.vmap(group)(*groups).reshape(rewards.shape)


def _refuse_mask(mask):
    if mask is not None:
        raise ValueError(
            "mask: one table has one group size; pass a table_family for groups that "
            "lost samples"
        )
