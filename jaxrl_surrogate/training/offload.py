"""Hold the optimizer state in host memory, and on devices only while a step uses it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxrl_surrogate.errors import FieldError

PyTree = Any

HOST = "pinned_host"


class Offloaded(NamedTuple):
    """An optax transformation whose state is in host memory between updates."""

    init: Callable
    update: Callable


def offloaded(optimizer: optax.GradientTransformation) -> Offloaded:
    """Mark an optimizer as offloaded.

    The update rule is the same; `training.state` and `training.step` check the type.
    """
    return Offloaded(optimizer.init, optimizer.update)


def place(optimizer: optax.GradientTransformation, shardings: PyTree) -> PyTree:
    """Return the shardings of an optimizer's state with the memory that holds it.

    Args:
      optimizer: the shardings are changed only if it is `Offloaded`.
      shardings: the shardings of its state.
    """
    if not isinstance(optimizer, Offloaded):
        return shardings
    return jax.tree.map(lambda s: s.with_memory_kind(HOST), shardings)


def fetch(
    optimizer: optax.GradientTransformation, state: PyTree, after: PyTree
) -> tuple[PyTree, PyTree]:
    """Copy the optimizer's state to the devices, inside a jitted function.

    Args:
      optimizer: nothing is done unless it is `Offloaded`.
      state: the optimizer's state.
      after: arrays that are computed before the state is copied, so that the state
        does not take device memory during their computation.

    Returns:
      The state on the devices, and `after`.
    """
    if not isinstance(optimizer, Offloaded):
        return state, after
    state, after = jax.lax.optimization_barrier((state, after))
    return jax.device_put(state, jax.memory.Space.Device), after


def check(optimizer: optax.GradientTransformation, device: jax.Device) -> None:
    """Check that a device can read host memory if the optimizer is `Offloaded`.

    Raises:
      FieldError: for the field `offload`; the device has no pinned host memory.
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
