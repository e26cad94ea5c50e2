"""Optimizer state in the host's memory: on the devices only while a step uses it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxrl_surrogate.errors import FieldError

PyTree = Any

HOST = "pinned_host"


class Offloaded(NamedTuple):
    """An optax transformation whose state is held by the host between updates."""

    init: Callable
    update: Callable


def offloaded(optimizer: optax.GradientTransformation) -> Offloaded:
    """The same rule; `training.state` and `training.step` know what the type means."""
    return Offloaded(optimizer.init, optimizer.update)


def place(optimizer: optax.GradientTransformation, shardings: PyTree) -> PyTree:
    """Shardings of an optimizer's state, in the memory where it is held."""
    if not isinstance(optimizer, Offloaded):
        return shardings
    return jax.tree.map(lambda s: s.with_memory_kind(HOST), shardings)


def fetch(
    optimizer: optax.GradientTransformation, state: PyTree, after: PyTree
) -> tuple[PyTree, PyTree]:
    """The optimizer's state on the devices, inside a jitted function, and `after`.

    Args:
      optimizer: whose state it is; nothing is done unless it is `Offloaded`.
      state: the optimizer's state.
      after: what is to be computed before the state takes room on the devices.
    """
    if not isinstance(optimizer, Offloaded):
        return state, after
    state, after = jax.lax.optimization_barrier((state, after))
    return jax.device_put(state, jax.memory.Space.Device), after


def check(optimizer: optax.GradientTransformation, device: jax.Device) -> None:
    """Refuse an offloaded state where the host has no memory that devices can read.

    Raises:
      FieldError: naming the field.
    """
    kinds = {memory.kind for memory in device.addressable_memories()}
    if isinstance(optimizer, Offloaded) and HOST not in kinds:
        raise FieldError(
            "offload",
            True,
            problem=f"devices of kind {device.device_kind!r} know the memories "
            f"{sorted(kinds)}",
            expected=f"{HOST!r} among them, or offload=False",
        )
