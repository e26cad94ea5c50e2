"""What training changes: parameters, optimizer state, and the count of steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.training import offload


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step reads and writes; donated to the step."""

    params: models.Params  # float32
    opt_state: optax.OptState
    step: jax.Array  # () int32, optimizer steps taken
    skipped: jax.Array  # () int32, steps not taken: loss or gradient not finite


def new_state(
    params: models.Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """A state at step 0 around given parameters."""
    return TrainState(params, optimizer.init(params), jnp.int32(0), jnp.int32(0))


def state_shardings(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """The sharding of every array of a train state, as a `TrainState` of shardings."""
    params = models.abstract_params(config)
    shardings = partition.param_shardings(mesh, models.logical_axes(config), params)
    abstract = jax.eval_shape(functools.partial(new_state, optimizer=optimizer), params)
    placed = partition.state_shardings(mesh, shardings, abstract, params)
    opt_state = offload.place(optimizer, placed.opt_state)
    return dataclasses.replace(placed, opt_state=opt_state)


def abstract_state(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """Shapes, dtypes and shardings of a train state, to restore a checkpoint into."""
    abstract = jax.eval_shape(
        functools.partial(new_state, optimizer=optimizer),
        models.abstract_params(config),
    )
    return partition.abstract_like(abstract, state_shardings(config, optimizer, mesh))


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
) -> TrainState:
    """A state at step 0 around `init_params`."""
    return restart(init_params(config, mesh, seed), config, optimizer, mesh)


def restart(
    params: models.Params,
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """A state at step 0 around given parameters, placed on the mesh.

    Arrays that are already placed so are taken over, not copied: whoever donates the
    state has given them away.
    """
    shardings = state_shardings(config, optimizer, mesh)
    params = jax.device_put(params, shardings.params)
    rest = jax.jit(
        lambda params: (optimizer.init(params), jnp.int32(0), jnp.int32(0)),
        out_shardings=(shardings.opt_state, shardings.step, shardings.skipped),
    )
    return TrainState(params, *rest(params))
