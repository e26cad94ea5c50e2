"""The train state: parameters, optimizer state and counters."""

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
    """All arrays that an update changes, and the frozen parameters.

    The parameters are in two parts (`training.freezing`). Gradients and optimizer state
    exist only for the trainable part. A step donates all arrays except the frozen
    parameters, and returns those as the same arrays.
    """

    trainable: models.Params  # float32; nested dict of the parameters that are trained
    frozen: models.Params  # float32; nested dict of the others, empty if there are none
    opt_state: optax.OptState  # the optimizer's state for `trainable`
    step: jax.Array  # () int32, updates done, skipped ones included
    skipped: jax.Array  # () int32, updates skipped for a non-finite loss or gradient

    @property
    def params(self) -> models.Params:
        """All parameters in one tree, for a forward pass; no array is copied."""
        return merge(self.trainable, self.frozen)


def new_state(
    params: models.Params,
    optimizer: optax.GradientTransformation,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """Return a train state at step 0 with the given parameters."""
    trainable, frozen = split(params, is_frozen)
    opt_state = optimizer.init(trainable)
    return TrainState(trainable, frozen, opt_state, jnp.int32(0), jnp.int32(0))


def state_shardings(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """Return a `TrainState` that holds the sharding of every array of a train state."""
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
    """Return a `TrainState` of `jax.ShapeDtypeStruct` with shardings.

    A checkpoint is restored into it.
    """
    params = models.abstract_params(config)
    return partition.abstract_like(
        _abstract_state(params, optimizer, is_frozen),
        state_shardings(config, optimizer, mesh, is_frozen),
    )


def _abstract_state(params, optimizer, is_frozen):
    """Return the shapes and dtypes of a train state with the given parameters."""
    create = functools.partial(new_state, optimizer=optimizer, is_frozen=is_frozen)
    return jax.eval_shape(create, params)


def abstract_params(
    config: models.DecoderConfig, mesh: jax.sharding.Mesh
) -> models.Params:
    """Return the parameters as `jax.ShapeDtypeStruct` with shardings."""
    params = models.abstract_params(config)
    shardings = partition.param_shardings(mesh, models.logical_axes(config), params)
    return partition.abstract_like(params, shardings)


def init_params(
    config: models.DecoderConfig, mesh: jax.sharding.Mesh, seed: int
) -> models.Params:
    """Draw random parameters, sharded on the mesh from the start.

    No device ever holds a whole parameter that is sharded. The same seed gives the same
    parameters on every mesh.
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
    """Return a train state at step 0 with the parameters of `init_params`."""
    params = init_params(config, mesh, seed)
    return restart(params, config, optimizer, mesh, is_frozen)


def restart(
    params: models.Params,
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> TrainState:
    """Return a train state at step 0 with the given parameters, sharded on the mesh.

    Arrays that already have the required sharding are not copied, so donating the state
    also invalidates the arrays in `params`.
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

    The state is donated except for its frozen parameters, which are only read. The
    returned state holds the same frozen arrays, and other code may share them.
    """

    def __init__(
        self,
        step: Callable[..., tuple[TrainState, Any]],
        shardings: TrainState,
        inputs: Sequence[Any],
        metrics: Any,
    ):
        """Prepare the step, which is compiled at its first call.

        Args:
          step: a pure function `(state, *inputs) -> (state, metrics)` that does not
            change the frozen parameters.
          shardings: the shardings of the state.
          inputs: the shardings of each further argument.
          metrics: the sharding of the metrics.
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
        """Return the state after the step, and its metrics."""
        after, found = self._compiled(*_apart(state, inputs))
        return dataclasses.replace(after, frozen=state.frozen), found

    def lower(self, state: TrainState, *inputs: Any) -> jax.stages.Lowered:
        """Return the step lowered for arguments of these shapes.

        Once compiled, it takes the state without its frozen parameters, then the
        inputs, then the frozen parameters.
        """
        return self._compiled.lower(*_apart(state, inputs))

    def trace(self, state: TrainState, *inputs: Any) -> jax.stages.Traced:
        """Return the step traced for arguments of these shapes."""
        return self._compiled.trace(*_apart(state, inputs))


def _apart(state, inputs):
    """Return the arguments of a compiled step: donated part, inputs, frozen part."""
    return dataclasses.replace(state, frozen={}), *inputs, state.frozen
