"""Lists the collectives that the partitioning intends, and finds unintended ones.

The compiler places the collectives. A missing sharding constraint or a new compiler
version can make it gather the whole model instead of one layer, without any change of
the results. So the intended collectives are listed here, and the plan and a test
compare a compiled program with them.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax

from jaxrl_surrogate import models
from jaxrl_surrogate.lab.plan.compile import Phase
from jaxrl_surrogate.lab.plan.cost import Cost, Work
from jaxrl_surrogate.lab.plan.job import Job
from jaxrl_surrogate.parallel import partition

_BATCH = frozenset({"data", "fsdp"})


@dataclasses.dataclass(frozen=True)
class Intended:
    """A collective that is intended in the loop over tokens."""

    kinds: tuple[str, ...]
    axes: frozenset[str]  # mesh axes; the collective may use some or all of them
    elements: int  # maximum size of its largest array on one device
    reason: str  # what it is for


def intended_decode(job: Job, mesh: jax.sharding.Mesh) -> tuple[Intended, ...]:
    """Return the collectives that are intended in the loop over tokens."""
    samples = job.rollout.group_size
    if samples % mesh.shape["sequence"] == 0:
        samples //= mesh.shape["sequence"]
    rows = job.rollout.prompts_per_step // partition.num_batch_shards(mesh) * samples
    tensor, expert = frozenset({"tensor"}), frozenset({"expert"})
    summed = ("all-reduce", "reduce-scatter", "all-gather")
    c = job.model
    vocabulary = -(-c.vocab_size // 128) * 128  # sampled from in blocks of 128
    layer = max(math.prod(a.used_layer) for a in _arrays(job, mesh) if a.stacked)
    gathered = Intended(
        ("all-gather",), frozenset({"fsdp", "sequence"}), layer,
        "a matrix of the layer that comes next",
    )  # fmt: skip
    return (*([] if job.rollout.gather_weights else [gathered]),
        Intended(
            summed, tensor, rows * c.embed_dim,
            "sums of attention, MLP and embedding over their split halves",
        ),
        Intended(
            ("all-gather", "collective-permute", "all-to-all"), tensor,
            rows * vocabulary, "logits of a row, of which one token is drawn",
        ),
        Intended(("all-reduce",), tensor, rows, "largest logit and the token's own"),
        Intended(
            summed, expert,
            rows * mesh.shape["expert"] * c.embed_dim,
            "rows of all devices to their experts, and what these make of them",
        ),
        Intended(("all-reduce",), frozenset(mesh.axis_names), 1, "whether all ended"),
    )  # fmt: skip


def unintended(
    cost: Cost, phase: Phase, job: Job, mesh: jax.sharding.Mesh
) -> tuple[str, ...]:
    """Describe the collectives of a phase that the partitioning does not intend.

    In the update, at most one layer or one table of the parameters may be gathered at a
    time over data and fsdp, and none over tensor. In the rollout, all layers may also
    be gathered over data and fsdp once before the loop over tokens; inside this loop
    only `intended_decode` is allowed.

    Args:
      cost: work of the compiled phase.
      phase: "rollout" or "update".
      job: the job that was compiled.
      mesh: mesh that it was compiled for.
    """
    found = {}
    for work in cost.collectives:
        reason = _token_fault(work, job, mesh) if phase == "rollout" else None
        reason = reason or _gather_fault(work, phase, job, mesh)
        if reason:
            each = work.collective
            axes = "+".join(each.axes(mesh))
            found[
                f"{each.kind} over {axes} of {each.largest} elements, {work.times} "
                f"times, from {each.source or 'unknown'}: {reason}"
            ] = None
    return tuple(found)


def _token_fault(work: Work, job: Job, mesh: jax.sharding.Mesh) -> str | None:
    if not _in_token_loop(work):
        return None
    each, axes = work.collective, set(work.collective.axes(mesh))
    if any(
        each.kind in intended.kinds
        and axes <= intended.axes
        and each.largest <= intended.elements
        for intended in intended_decode(job, mesh)
    ):
        return None
    return "no token should need it"


def _in_token_loop(work: Work) -> bool:
    return any(loop.may_stop for loop in work.loops)


def _gather_fault(work, phase, job, mesh):
    each, axes = work.collective, set(work.collective.axes(mesh))
    if each.kind != "all-gather":
        return None
    for axis in ("tensor", "expert"):
        for array in _arrays(job, mesh) if axis in axes else ():
            if axis in array.split and _same(each.dims, array.whole, array.layer):
                return f"{array.name} should stay split over {axis}"
    if axes & {*_BATCH, "sequence"} and (work.loops or phase == "update"):
        arrays = list(_arrays(job, mesh))
        for array in arrays:
            one = job.model.num_layers == 1
            if array.stacked and not one and _same(each.dims, array.used):
                return f"all layers of {array.name} are gathered at once"
        limit = max(math.prod(array.used_layer) for array in arrays)
        if axes & _BATCH and each.largest > limit:
            return f"no layer or table that is used at once has more than {limit}"
    return None


@dataclasses.dataclass(frozen=True)
class _Array:
    """The shapes of a parameter: stored as a whole, and on one device while used."""

    name: str
    whole: tuple[int, ...]
    used: tuple[int, ...]
    stacked: bool  # whether the first axis is that of the layers
    split: tuple[str, ...]  # mesh axes over which it stays sharded

    @property
    def layer(self) -> tuple[int, ...]:
        return self.whole[self.stacked :]

    @property
    def used_layer(self) -> tuple[int, ...]:
        return self.used[self.stacked :]


def _arrays(job: Job, mesh: jax.sharding.Mesh) -> Iterator[_Array]:
    """Yield all parameters with two or more axes, not counting that of the layers."""
    params = models.abstract_params(job.model)
    axes = models.logical_axes(job.model)
    for (path, leaf), names in zip(
        jax.tree.leaves_with_path(params),
        jax.tree.leaves(axes, is_leaf=lambda node: isinstance(node, tuple)),
        strict=True,
    ):
        stacked = names[0] == "layers"
        if leaf.ndim - stacked < 2:
            continue
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = partition.partition_spec(
            mesh, names, leaf.shape, rules=partition.COMPUTE_RULES
        )
        used = tuple(
            size // (mesh.shape[axis] if axis else 1)
            for size, axis in zip(leaf.shape, spec, strict=True)
        )
        split = tuple(axis for axis in spec if axis and mesh.shape[axis] > 1)
        yield _Array(name, leaf.shape, used, stacked, split)


def _same(dims: tuple[int, ...], *shapes: tuple[int, ...]) -> bool:
    """Return whether `dims` is one of the shapes, in any order and without 1s."""

    def plain(shape):
        return sorted(size for size in shape if size > 1)

    return any(plain(dims) == plain(shape) for shape in shapes)
