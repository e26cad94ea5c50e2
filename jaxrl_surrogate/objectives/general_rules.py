"""Rules that are no table: any function of the rewards of a group, as code.

A table of weights is data, and its objective h(p) is known exactly. A general rule may
look at graded rewards, at their order or at their place in the group. Such a rule is no
leaf of the compiled step's arguments but part of the program: another rule compiles
another step.

What it ascends: on rewards of 0 and 1 the samples of a group are exchangeable, so the
mean update is that of the table with the mean weights over all orders of the group
(`GeneralRule.table`), and has its h(p). On graded rewards there is in general no
objective at all (`curl.circulation` shows it).
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
    """Weights of groups by a function; build it with `general_rule`, which checks it.

    It takes the place of a `TableFamily` in the update and has no leaves as a pytree:
    the function is part of what is compiled.
    """

    function: Callable = dataclasses.field(metadata=_STATIC)
    group_size: int = dataclasses.field(metadata=_STATIC)
    # Whether groups of equal rewards get weights of 0 (dynamic sampling replaces them).
    mixed_only: bool = dataclasses.field(metadata=_STATIC, default=False)

    @property
    def takes_mask(self) -> bool:
        """Whether the function has a parameter `mask`."""
        return "mask" in _parameters(self.function)

    def __call__(self, rewards: Array, mask: Array | None = None) -> jax.Array:
        """The weight of every sample of whole groups.

        Args:
          rewards: (..., M), any numbers; the function gets them as float32, 0 where
            they are masked.
          mask: (..., M) bool, False on samples without a verdict; None has none.

        Returns:
          (..., M) float32, 0 where masked. A function that takes no mask weighs whole
          groups alone: a group that lost a sample gets weights of 0.

        Raises:
          ValueError: groups of another size.
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
        """The table with the rule's mean update on rewards of 0 and 1.

            a[s] = mean of Z_i over groups with R_i = 0 and S_i = s;  b[s] with R_i = 1

        over all places i and all orders of the rewards: samples are exchangeable, so
        E[Z_i | R_i, S_i] is all that the mean update depends on. Exact for M up to 12,
        and at any M for rules that follow the order of their rewards; for others the
        mean over 64 random orders of each count.

        Returns:
          Group size M, float64 of float32 weights.
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
    """A rule from a function, called once on rewards of 0 and 1 before it is used.

    Args:
      function: (M,) float32 rewards to (M,) weights, in jax.numpy: it is compiled, and
        mapped over groups. With a parameter `mask` it also gets (M,) bool, False on
        samples without a verdict, whose rewards are 0 and whose weights do not count.
      group_size: M.

    Raises:
      FieldError: with the field "function", where JAX cannot trace it, it uses values
        of another trace, it returns another shape or no real numbers, a weight is not
        finite, or the same rewards give other weights when it is traced again (random
        numbers, a state).

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
        # A function of its own each time, so that JAX traces it each time.
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
    """(N, M) float32 groups with `count` rewards of 1, in all or in random orders."""
    if size <= _MOST_ENUMERATED:
        bits = np.arange(2**size)[:, None] >> np.arange(size) & 1
        return bits[bits.sum(-1) == count].astype(np.float32)
    group = (np.arange(size) < count).astype(np.float32)
    generator = np.random.default_rng([size, count])
    return np.stack([generator.permutation(group) for _ in range(_ORDERS)])


def _examples(size: int, with_masks: bool) -> tuple[np.ndarray, np.ndarray]:
    """(N, M) float32 rewards of 0 and 1 with (N, M) masks that a rule is tried on."""
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
    """File and line of the function's own module at which it raised, if known."""
    inner = getattr(function, "func", function)  # of functools.partial
    file = getattr(getattr(inner, "__code__", None), "co_filename", None)
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" at {file}:{line}"
