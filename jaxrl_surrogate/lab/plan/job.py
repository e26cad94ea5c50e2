"""The programs of a step, as training builds them, over shapes instead of arrays."""

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
    """What a step consists of."""

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
        """How much is sampled."""
        return self.decode.rollout

    @property
    def update(self) -> UpdateConfig:
        """What is fixed when the update is compiled."""
        return UpdateConfig(
            self.loss, self.rollout.sampling, self.reward_mode, self.loop
        )

    @property
    def update_prompts(self) -> int:
        """Prompts of one optimizer step."""
        return self.rollout.prompts_per_step // self.loop.minibatches

    @property
    def updates(self) -> int:
        """Optimizer steps on one rollout."""
        return self.loop.minibatches * self.loop.epochs

    def make_mesh(self, devices) -> jax.sharding.Mesh:
        """The job's mesh on given devices.

        Raises:
          ValueError: sizes that do not multiply to their number, or a batch that does
            not split.
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
        """The train state's shapes and shardings."""
        return abstract_state(self.model, self.optimizer, mesh, self.is_frozen)

    def lower_update(self, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """The update of one minibatch, lowered for the mesh's devices."""
        state = self.abstract_state(mesh)
        update = make_update(
            self.model, self.update, self.optimizer, mesh, self.is_frozen
        )
        reference = state.params if self.loss.kl_coef else None
        objective = _placed(self.objective, partition.replicated(mesh))
        return update.lower(state, self._batch(mesh), objective, reference)

    def lower_rollout(self, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """The rollout of a step, lowered for the mesh's devices."""
        params = self.abstract_state(mesh).params
        prompts = self._prompts(mesh, self.rollout.prompts_per_step)
        key = jax.eval_shape(functools.partial(rng.stream_key, 0, "rollout"))
        key = _placed(key, partition.replicated(mesh))
        return rollout.lower(self.model, self.decode, params, prompts, key, mesh)

    def lower(self, phase: str, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
        """`lower_update` or `lower_rollout` by name."""
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
    """The parameters as a rollout holds them: cast, and gathered if that is asked."""
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
    """Keys and values at a rollout's end: of completions, and of their prompts."""
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
    """Bytes of an array on one device."""
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _by_rules(mesh, names, shape, rules):
    return NamedSharding(
        mesh, partition.partition_spec(mesh, names, shape, rules=rules)
    )


def _placed(tree, sharding):
    """Shapes and dtypes as arrays of a tree have them on devices, and a sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        # A NumPy float64, as in weight tables, is float32 there.
        jax.eval_shape(lambda leaves: leaves, tree),
    )
