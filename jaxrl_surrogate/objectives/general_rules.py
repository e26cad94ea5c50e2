"""General rules: weights by any function of the rewards of a group.

A table of weights is data, and its objective h(p) is known exactly. A general rule is
code, and may depend on graded rewards, on their order or on their place in the group.
It is not an argument of the compiled step but a part of its program, so another rule
needs another compilation.

On rewards of 0 and 1 the samples of a group are exchangeable. The mean update of a rule
is then that of the table with its mean weights over all orders of the group
(`GeneralRule.table`), and the rule ascends the h(p) of that table. On graded rewards a
rule has in general no objective, which `curl.circulation` tests.
"""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import (
    Array,
    WeightTable,
    check_group_size,
)

_MOST_ENUMERATED = 12  # all 2^M groups up to this M, random orders above
_ORDERS = 64

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GeneralRule:
    """A rule that computes the weights of a group by a function.

    Build it with `general_rule`, which checks the function. The update takes it in
    place of a `TableFamily`. As a pytree it has no leaves: the function is static.
    """

    function: Callable = dataclasses.field(metadata=_STATIC)
    group_size: int = dataclasses.field(metadata=_STATIC)
    # Whether groups of equal rewards get weights of 0, as dynamic sampling needs.
    mixed_only: bool = dataclasses.field(metadata=_STATIC, default=False)

    @property
    def takes_mask(self) -> bool:
        """Whether the function has a parameter `mask`."""
        return "mask" in _parameters(self.function)

    def __call__(self, rewards: Array, mask: Array | None = None) -> jax.Array:
        """Return the weight of every sample.

        Args:
          rewards: (..., M), any numbers. The function gets them as float32, with 0
            where the mask is False.
          mask: (..., M) bool, False on samples without a reward; None keeps all.

        Returns:
          (..., M) float32, 0 where the mask is False. If the function takes no mask,
          every sample of a group that lost one gets a weight of 0.

        Raises:
          ValueError: for groups of another size.
        """
        shape = np.shape(rewards)
        if not shape or shape[-1] != self.group_size:
            raise ValueError(
                f"rewards of shape {shape}: expected groups of {self.group_size}"
            )
        kept = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
        rewards = jnp.where(kept, jnp.asarray(rewards, jnp.float32), 0)

        def group(rewards, kept):
            if self.takes_mask:
                weights = self.function(rewards, mask=kept)
            else:
                weights = self.function(rewards)
                kept = kept & kept.all()
            if self.mixed_only:
                highest = jnp.where(kept, rewards, -jnp.inf).max()
                kept = kept & (highest > jnp.where(kept, rewards, jnp.inf).min())
            return jnp.where(kept, jnp.asarray(weights, jnp.float32), 0)

        flat = rewards.reshape(-1, self.group_size), kept.reshape(-1, self.group_size)
        return jax.vmap(group)(*flat).reshape(shape)

    def table(self) -> WeightTable:
        """Return the table with the rule's mean update on rewards of 0 and 1.

            a[s] = mean of Z_i over groups with R_i = 0 and S_i = s;  b[s] with R_i = 1

        The mean is over all places i and all orders of the rewards. As samples are
        exchangeable, the mean update depends on E[Z_i | R_i, S_i] alone. The table is
        exact for M up to 12, and at any M for rules under which a permutation of the
        rewards permutes the weights. For other rules above 12 it is the mean over 64
        random orders of each count.

        Returns:
          A table of group size M, in float64 computed from float32 weights.
        """
        size = self.group_size
        rewards = np.concatenate([_orders(size, count) for count in range(size + 1)])
        weights, correct = np.asarray(self(rewards), np.float64), rewards > 0.5
        counts = correct.sum(-1)

        def mean(count, side):
            return weights[counts == count][side[counts == count]].mean()

        return WeightTable(
            incorrect=np.array([mean(count, ~correct) for count in range(size)]),
            correct=np.array([mean(count, correct) for count in range(1, size + 1)]),
        )


def general_rule(function: Callable, group_size: int) -> GeneralRule:
    """Return a rule from a function, after trying it on rewards of 0 and 1.

    Args:
      function: a function of (M,) float32 rewards to (M,) weights, in jax.numpy. It is
        compiled and mapped over groups. If it has a parameter `mask`, it also gets
        (M,) bool, False on samples without a reward. The rewards of these are 0, and
        their weights are ignored.
      group_size: M.

    Raises:
      FieldError: with the field "function", if JAX cannot trace it, if it uses values
        of another trace, if it returns another shape or values that are not real, if a
        weight is not finite, or if it gives other weights for the same rewards when it
        is traced again (because of random numbers or a state).

    >>> rule = general_rule(lambda rewards: rewards - jnp.median(rewards), 3)
    >>> print(rule(np.array([0.0, 0.5, 2.0])))
    [-0.5  0.   1.5]
    """
    check_group_size(group_size)
    rule = GeneralRule(function, group_size)
    name = getattr(function, "__name__", repr(function))
    rewards, masks = _examples(group_size, rule.takes_mask)

    def one(rewards, mask):
        return function(rewards, mask=mask) if rule.takes_mask else function(rewards)

    def refused(problem: str) -> FieldError:
        return FieldError("function", name, problem=problem)

    def called():
        # A new function object each time makes JAX trace it each time.
        return np.asarray(jax.jit(jax.vmap(lambda *x: one(*x)))(rewards, masks))

    try:
        out = jax.eval_shape(one, rewards[0], masks[0])
        if getattr(out, "shape", None) != (group_size,):
            found = getattr(out, "shape", type(out).__name__)
            raise refused(
                f"expected weights of shape ({group_size},) for the rewards of one "
                f"group, got {found}"
            )
        if not (jnp.issubdtype(out.dtype, jnp.floating) or out.dtype.kind in "iub"):
            raise refused(f"expected real weights, got {out.dtype}")
        weights, again = called(), called()
    except FieldError:
        raise
    except Exception as error:  # of whatever the user's function does
        first = str(error).strip().splitlines()
        raise refused(
            "expected a function of rewards (M,) in jax.numpy, which jax.jit and "
            f"jax.vmap can trace; it raised {type(error).__name__}"
            f"{_place(error, function)}: {first[0] if first else ''}"
        ) from error
    bad = (~np.isfinite(weights) & masks).any(-1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise refused(
            f"the weights of the rewards {rewards[row].astype(int)} are "
            f"{weights[row]}; expected finite numbers (groups of equal rewards need a "
            "case of their own where a method divides by the deviation)"
        )
    changed = ((weights != again) & masks).any(-1)
    if changed.any():
        row = int(np.flatnonzero(changed)[0])
        raise refused(
            f"rewards {rewards[row].astype(int)} give the weights {weights[row]}, and "
            f"{again[row]} when it is traced again; leave out random numbers and state"
        )
    return rule


def _orders(size: int, count: int) -> np.ndarray:
    """Return (N, M) float32 groups with `count` ones, in all orders or random ones."""
    if size <= _MOST_ENUMERATED:
        bits = np.arange(2**size)[:, None] >> np.arange(size) & 1
        return bits[bits.sum(-1) == count].astype(np.float32)
    group = (np.arange(size) < count).astype(np.float32)
    generator = np.random.default_rng([size, count])
    return np.stack([generator.permutation(group) for _ in range(_ORDERS)])


def _examples(size: int, with_masks: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N, M) float32 rewards and (N, M) bool masks that a rule is tried on.

    The rewards are 0 or 1.
    """
    counts = np.arange(size + 1)[:, None]
    rewards = (np.arange(size) < counts).astype(np.float32)
    masks = np.ones(rewards.shape, bool)
    if with_masks:
        fewer = [np.arange(size) < kept for kept in (0, 1, size - 1)]
        masks = np.concatenate([masks, *(masks & one for one in fewer)])
        rewards = np.tile(rewards, (4, 1)) * masks
    return rewards.astype(np.float32), masks


def _parameters(function: Callable) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a built-in has none to show
        return ()


def _place(error: Exception, function: Callable) -> str:
    """Return the file and line of the function at which it raised, if known."""
    inner = getattr(function, "func", function)  # of functools.partial
    file = getattr(getattr(inner, "__code__", None), "co_filename", None)
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" at {file}:{line}"
