"""Weights of a batch of groups, by any method of this layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.objectives import advantages, binary_rewards
from jaxrl_surrogate.objectives.advantages import AdvantageFn
from jaxrl_surrogate.objectives.weight_table import (
    Array,
    GroupFunction,
    TableFamily,
    WeightTable,
    table_family,
)


def group_advantages(
    method: str | GroupFunction | WeightTable | TableFamily,
    rewards: Array,
    mask: Array | None = None,
) -> jax.Array:
    """Return the weights of a batch of groups, computed by a compiled function.

    Args:
      method: a name such as "grpo" or "pass_at_k:k=4", a named advantage
        (`advantages.get`), a table, a family, or any jit-compatible function of one
        group's rewards. A function is compiled once per object, so pass the same object
        again rather than a new lambda.
      rewards: (G, M), the rewards of M samples of each of G prompts. Each is 0 or 1,
        except with a function of your own, which gets any rewards unchanged.
      mask: (G, M) bool, False on samples that are dropped; None drops none.

    Returns:
      (G, M) float; 0 on dropped samples.

    Raises:
      ValueError: for an unknown name, if groups have another size than the table, if a
        reward is neither 0 nor 1, or if a mask is given with a method that has no
        tables of smaller sizes.

    >>> print(group_advantages("rloo", np.array([[1.0, 0.0, 0.0]])))
    [[ 1.  -0.5 -0.5]]
    """
    shape = np.shape(rewards)
    if len(shape) != 2:
        raise ValueError(
            f"rewards: expected shape (num_prompts, group_size), got {shape}"
        )
    if isinstance(method, str):
        method = advantages.parse(method)
    if mask is not None and not isinstance(method, TableFamily):
        make_table = getattr(method, "table", None)
        if make_table is None:
            raise ValueError(
                "mask: this method has one group size only and cannot weigh groups "
                "that lost samples; pass table_family(lambda n: tabulate(fn, n), M)"
            )
        method = _cached_family(make_table, shape[1])
    if isinstance(method, AdvantageFn):
        # The table is cached and is an argument, so another one compiles nothing.
        method = method.table(shape[1])
    if not isinstance(method, (WeightTable, TableFamily)):
        return _map_groups(method, jnp.asarray(rewards))
    binary_rewards.settle(rewards, mask)  # raises here, where values are known
    if isinstance(method, TableFamily):
        return _apply_family(method, jnp.asarray(rewards), mask)
    return _apply_table(method, jnp.asarray(rewards))


@jax.jit
def _apply_family(family, rewards, mask):
    return family(rewards, mask)


@jax.jit
def _apply_table(table, rewards):
    return table(rewards)


@functools.partial(jax.jit, static_argnums=0)
def _map_groups(fn, rewards):
    return jax.vmap(fn)(rewards)


_cached_family = functools.lru_cache(maxsize=64)(table_family)
