"""What training changes: parameters, optimizer state, and the count of steps."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.freezing import IsFrozen, merge, none_frozen, split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step reads and writes.

    The parameters are in two parts (`training.freezing`): gradients and the optimizer's
    state exist for the trainable ones alone. A step is given everything else for good
    (it is donated), and returns the frozen ones as the arrays that they were.
    """

    trainable: models.Params  # float32; nested dict of the parameters that are trained
    frozen: models.Params  # float32; nested dict of the others, empty if there are none
    opt_state: optax.OptState  # of `trainable`
    step: jax.Array  # () int32, optimizer steps taken
    skipped: jax.Array  # () int32, steps not taken: loss or gradient not finite

    @property
    def params(self) -> models.Params:
        """All parameters in one tree, as a forward pass takes them; copies nothing."""
        return merge(self.trainable, self.frozen)


def new_state(
    params: models.Params,
    optimizer: optax.GradientTransformation,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """A state at step 0 around given parameters."""
    trainable, frozen = split(params, is_frozen)
    opt_state = optimizer.init(trainable)
    return TrainState(trainable, frozen, opt_state, jnp.int32(0), jnp.int32(0))


def state_shardings(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """The sharding of every array of a train state, as a `TrainState` of shardings."""
    params = models.abstract_params(config)
    shardings = partition.param_shardings(mesh, models.logical_axes(config), params)
    abstract = _abstract_state(params, optimizer, is_frozen)
    placed = partition.state_shardings(mesh, shardings, abstract, params)
    opt_state = offload.place(optimizer, placed.opt_state)
    return dataclasses.replace(placed, opt_state=opt_state)


def abstract_state(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """Shapes, dtypes and shardings of a train state, to restore a checkpoint into."""
    params = models.abstract_params(config)
    return partition.abstract_like(
        _abstract_state(params, optimizer, is_frozen),
        state_shardings(config, optimizer, mesh, is_frozen),
    )


def _abstract_state(params, optimizer, is_frozen):
    """Shapes and dtypes of a state around parameters."""
    create = functools.partial(new_state, optimizer=optimizer, is_frozen=is_frozen)
    return jax.eval_shape(create, params)


def abstract_params(
    config: models.DecoderConfig, mesh: jax.sharding.Mesh
) -> models.Params:
    """Shapes, dtypes and shardings of the parameters of a train state."""
    params = models.abstract_params(config)
    shardings = partition.param_shardings(mesh, models.logical_axes(config), params)
    return partition.abstract_like(params, shardings)


def init_params(
    config: models.DecoderConfig, mesh: jax.sharding.Mesh, seed: int
) -> models.Params:
    """Draw parameters straight into their shards; nothing is ever whole on one device.

    The same seed gives the same parameters on every mesh.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(config, mesh))
    create = jax.jit(
        functools.partial(models.init_params, config), out_shardings=shardings
    )
    return create(rng.stream_key(seed, "init"))


def init_state(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    seed: int,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """A state at step 0 around `init_params`."""
    params = init_params(config, mesh, seed)
    return restart(params, config, optimizer, mesh, is_frozen)


def restart(
    params: models.Params,
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """A state at step 0 around given parameters, placed on the mesh.

    Arrays that are already placed so are taken over, not copied: whoever donates the
    state has given them away.
    """
    shardings = state_shardings(config, optimizer, mesh, is_frozen)
    params = jax.device_put(params, shardings.params)
    trainable, frozen = split(params, is_frozen)
    rest = jax.jit(
        lambda params: (optimizer.init(params), jnp.int32(0), jnp.int32(0)),
        out_shardings=(shardings.opt_state, shardings.step, shardings.skipped),
    )
    return TrainState(trainable, frozen, *rest(trainable))


class StateStep:
    """A compiled step `(state, *inputs) -> (state, metrics)`.

    The state is donated but for its frozen parameters, which are only read: the state
    that comes back holds the same arrays, and others may hold them too.
    """

    def __init__(
        self,
        step: Callable[..., tuple[TrainState, Any]],
        shardings: TrainState,
        inputs: Sequence[Any],
        metrics: Any,
    ):
        """Compile at the first call.

        Args:
          step: pure; returns the frozen parameters as it was given them.
          shardings: of the state.
          inputs: the shardings of each further argument.
          metrics: the sharding of what comes back besides the state.
        """

        def on_moving(moving, *inputs_and_frozen):
            *inputs, frozen = inputs_and_frozen
            state, found = step(dataclasses.replace(moving, frozen=frozen), *inputs)
            return dataclasses.replace(state, frozen={}), found

        moving = dataclasses.replace(shardings, frozen={})
        self._compiled = jax.jit(
            on_moving,
            donate_argnums=0,
            in_shardings=(moving, *inputs, shardings.frozen),
            out_shardings=(moving, metrics),
            compiler_options=models.AS_WRITTEN,
        )

    def __call__(self, state: TrainState, *inputs: Any) -> tuple[TrainState, Any]:
        """The state after the step, and what the step says of it."""
        after, found = self._compiled(*_apart(state, inputs))
        return dataclasses.replace(after, frozen=state.frozen), found

    def lower(self, state: TrainState, *inputs: Any) -> jax.stages.Lowered:
        """The step lowered for arguments of these shapes; compiled, it takes
        the state without its frozen parameters, the inputs, and those."""
        return self._compiled.lower(*_apart(state, inputs))

    def trace(self, state: TrainState, *inputs: Any) -> jax.stages.Traced:
        """The step traced for arguments of these shapes."""
        return self._compiled.trace(*_apart(state, inputs))


def _apart(state, inputs):
    """Arguments of a compiled step: what is donated, the inputs, the frozen part."""
    return dataclasses.replace(state, frozen={}), *inputs, state.frozen
