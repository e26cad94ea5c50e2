"""Builds the programs of a step as training does, but from shapes, without arrays."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Prompts, batch_shapes
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.loop.config import LoopConfig
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.objectives import GeneralRule, TableFamily
from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.parallel import MeshConfig, make_mesh, partition
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig, rollout
from jaxrl_surrogate.training.freezing import IsFrozen, none_frozen
from jaxrl_surrogate.training.state import TrainState, abstract_state
from jaxrl_surrogate.training.step import UpdateConfig, make_update


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that determines the programs of a training step."""

    model: models.DecoderConfig
    loss: LossConfig
    reward_mode: RewardMode
    loop: LoopConfig
    optimizer: optax.GradientTransformation
    decode: DecodeConfig
    objective: TableFamily | GeneralRule
    mesh: MeshConfig
    is_frozen: IsFrozen = none_frozen

    @property
    def rollout(self) -> RolloutConfig:
        """The rollout's config: number of prompts, group size and lengths."""
        return self.decode.rollout

    @property
    def update(self) -> UpdateConfig:
        """The static settings of the update."""
        return UpdateConfig(
            self.loss, self.rollout.sampling, self.reward_mode, self.loop
        )

    @property
    def update_prompts(self) -> int:
        """Number of prompts in one optimizer step."""
        return self.rollout.prompts_per_step // self.loop.minibatches

    def make_mesh(self, devices) -> jax.sharding.Mesh:
        """Return the job's mesh over the given devices.

        Raises:
          ValueError: the product of the mesh sizes is not the number of devices, or the
            mesh does not divide the prompts of a batch.
        """
        mesh = make_mesh(self.mesh, devices)
        ways = partition.num_batch_shards(mesh)
        slices = self.loop.microbatch_prompts or self.update_prompts
        for field, size in (
            ("rollout.prompts_per_step", self.rollout.prompts_per_step),
            ("train.minibatches", self.update_prompts),
            ("train.microbatch_prompts", slices),
        ):
            if size % ways:
                raise FieldError(
                    field,
                    problem=f"{size} prompts are not a multiple of the {ways} ways "
                    f"that mesh axes data={mesh.shape['data']}, "
                    f"fsdp={mesh.shape['fsdp']} and expert={mesh.shape['expert']} "
                    "split a batch",
                    remedy="raise tensor or sequence, or prompts",
                )
        return mesh

    def abstract_state(self, mesh: jax.sharding.Mesh) -> TrainState:
        """Return the shapes and shardings of the train state."""
        return abstract_state(self.model, self.optimizer, mesh, self.is_frozen)

    def lower_update(self, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """Lower the update of one minibatch for the devices of the mesh."""
        state = self.abstract_state(mesh)
        update = make_update(
            self.model, self.update, self.optimizer, mesh, self.is_frozen
        )
        reference = state.params if self.loss.kl_coef else None
        objective = _placed(self.objective, partition.replicated(mesh))
        return update.lower(state, self._batch(mesh), objective, reference)

    def lower_rollout(self, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """Lower the rollout of a step for the devices of the mesh."""
        params = self.abstract_state(mesh).params
        prompts = self._prompts(mesh, self.rollout.prompts_per_step)
        key = jax.eval_shape(functools.partial(rng.stream_key, 0, "rollout"))
        key = _placed(key, partition.replicated(mesh))
        return rollout.lower(self.model, self.decode, params, prompts, key, mesh)

    def lower(self, phase: str, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """Lower the phase "update" or "rollout" for the devices of the mesh."""
        return {"update": self.lower_update, "rollout": self.lower_rollout}[phase](mesh)

    def _prompts(self, mesh, count):
        shapes = Prompts(
            jax.ShapeDtypeStruct((count, self.rollout.max_prompt_length), jnp.int32),
            jax.ShapeDtypeStruct((count,), jnp.int32),
            jax.ShapeDtypeStruct((count,), jnp.uint32),
        )
        return _placed(shapes, partition.batch_sharding(mesh))

    def _batch(self, mesh):
        shapes = batch_shapes(
            self.update_prompts,
            self.rollout.group_size,
            self.rollout.max_prompt_length,
            self.rollout.max_completion_length,
        )
        return _placed(shapes, partition.batch_sharding(mesh))


def decode_weights(
    job: Job, mesh: jax.sharding.Mesh
) -> dict[str, tuple[jax.ShapeDtypeStruct, NamedSharding]]:
    """Return the parameters as a rollout holds them, by name.

    They are cast to the compute dtype, and gathered if `rollout.gather_weights` is set.
    """
    params = jax.eval_shape(
        functools.partial(models.cast, dtype=job.model.compute_dtype),
        models.abstract_params(job.model),
    )
    axes = models.logical_axes(job.model)

    def place(path, leaf, names):
        whole = job.rollout.gather_weights or "layers" not in names
        rules = partition.DECODE_RULES if whole else partition.RULES
        return leaf, _by_rules(mesh, names, leaf.shape, rules)

    placed = jax.tree.map_with_path(place, params, axes)
    is_pair = lambda node: isinstance(node, tuple)  # noqa: E731
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): pair
        for path, pair in jax.tree.leaves_with_path(placed, is_leaf=is_pair)
    }


def cache_arrays(
    job: Job, mesh: jax.sharding.Mesh
) -> dict[str, tuple[jax.ShapeDtypeStruct, NamedSharding]]:
    """Return the KV cache at the end of a rollout: arrays and shardings by name.

    Completions and prompts have separate keys and values.
    """
    c = job.model
    sizes = job.rollout
    lengths = {
        "completions": sizes.max_completion_length,
        "prompts": sizes.max_prompt_length,
    }
    found = {}
    for owner, positions in lengths.items():
        rows, who = (sizes.prompts_per_step,), ("batch",)
        if owner == "completions":
            rows, who = (*rows, sizes.group_size), (*who, "samples")
        shape = (c.num_layers, *rows, c.num_kv_heads, positions, c.head_dim)
        names = (None, *who, "kv_heads", None, None)
        sharding = _by_rules(mesh, names, shape, partition.DECODE_RULES)
        for part in ("keys", "values"):
            array = jax.ShapeDtypeStruct(shape, c.compute_dtype)
            found[f"{owner}/{part}"] = (array, sharding)
    return found


def shard_bytes(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    """Return the bytes of an array on one device."""
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _by_rules(mesh, names, shape, rules):
    return NamedSharding(
        mesh, partition.partition_spec(mesh, names, shape, rules=rules)
    )


def _placed(tree, sharding):
    """Return the shapes and device dtypes of a tree's leaves, all with one sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        # A NumPy float64, as in weight tables, becomes float32 on devices.
        jax.eval_shape(lambda leaves: leaves, tree),
    )
