"""Searches for better ways to run a step: mesh, microbatches and recomputation.

Formulas (`estimate`) choose candidates, and compiled programs (`report`) decide.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl_surrogate.lab.plan.estimate import Estimate, estimate
from jaxrl_surrogate.lab.plan.job import Job
from jaxrl_surrogate.lab.plan.report import Plan, make_plan
from jaxrl_surrogate.lab.plan.topology import Topology
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.parallel.mesh import AXES

# Estimates may be off by this factor: it sets which candidates are compiled.
_HOPE = 1.1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A variant of a job, and the config fields that select it."""

    fields: dict[str, Any]  # values by dotted path
    job: Job
    estimate: Estimate


@dataclasses.dataclass(frozen=True)
class Tried:
    """A candidate and its plan, which was compiled."""

    candidate: Candidate
    plan: Plan


def candidates(
    job: Job, topology: Topology, *, fewer_prompts: bool = False
) -> list[Candidate]:
    """Return all variants whose sizes divide evenly, the fastest by estimate first.

    Args:
      job: the job to vary.
      topology: devices to run it on.
      fewer_prompts: also try to halve the prompts of a step repeatedly. This changes
        training, so these variants come last.
    """
    found = []
    for fields, variant in _variants(job, topology.num_chips, fewer_prompts):
        try:
            mesh = variant.make_mesh(topology.devices)
            guess = estimate(variant, topology, mesh)
        except ValueError:
            continue  # the mesh does not divide the batch
        found.append(Candidate(fields, variant, guess))

    def rank(candidate):
        seconds = candidate.estimate.seconds
        peak = max(candidate.estimate.bytes.values())
        fewer = job.rollout.prompts_per_step // candidate.job.rollout.prompts_per_step
        return fewer, peak if seconds is None else seconds, peak, len(candidate.fields)

    return sorted(found, key=rank)


def search(
    job: Job,
    topology: Topology,
    compiles: int,
    *,
    until_one_fits: bool = False,
    on_candidate: Callable[[Candidate], None] = lambda candidate: None,
) -> list[Tried]:
    """Compile the most promising variants of a job.

    Args:
      job: the job to vary.
      topology: devices to run it on.
      compiles: maximum number of variants that are compiled.
      until_one_fits: stop at the first variant that fits, and also try fewer prompts.
      on_candidate: called with each variant before it is compiled.

    Returns:
      The compiled variants: those that fit come first, each part by increasing time.
    """
    usable = topology.chip.usable_bytes
    listed = candidates(job, topology, fewer_prompts=until_one_fits)
    # A remedy should surely fit; a search for speed also tries what may just fit.
    bar = usable / _HOPE if until_one_fits else usable * _HOPE
    hopeful = [c for c in listed if c.estimate.fits(bar)]
    if not hopeful:
        hopeful = sorted(listed, key=lambda c: max(c.estimate.bytes.values()))
    tried = []
    for candidate in hopeful[:compiles]:
        on_candidate(candidate)
        plan = make_plan(candidate.job, topology)
        tried.append(Tried(candidate, plan))
        if until_one_fits and plan.fits:
            break
    return sorted(
        tried,
        key=lambda t: (not t.plan.fits, t.plan.step_seconds or 0, t.plan.peak_bytes),
    )


def _variants(
    job: Job, chips: int, fewer_prompts: bool
) -> Iterator[tuple[dict[str, Any], Job]]:
    prompts = [job.rollout.prompts_per_step]
    while fewer_prompts and prompts[-1] % (2 * job.loop.minibatches) == 0:
        prompts.append(prompts[-1] // 2)
    for count in prompts:
        for tensor in _divisors(chips):
            if not _splits(job, tensor):
                continue
            for expert, sequence, fsdp in _rest(job, chips // tensor):
                data = chips // (tensor * expert * sequence * fsdp)
                mesh = MeshConfig(data, fsdp, tensor, expert, sequence)
                yield from _slices(job, count, mesh)


def _rest(job: Job, chips: int) -> Iterator[tuple[int, int, int]]:
    """Yield sizes of the axes expert, sequence and fsdp; 1 means it is not used.

    The size of sequence divides the samples of a group, which the rollout shards over
    this axis.
    """
    experts, samples = job.model.num_experts, job.rollout.group_size
    for expert in _divisors(chips):
        if expert > 1 and (not experts or experts % expert):
            continue
        for sequence in _divisors(chips // expert):
            if samples % sequence or job.rollout.max_completion_length % sequence:
                continue
            for fsdp in _divisors(chips // expert // sequence):
                yield expert, sequence, fsdp


def _splits(job: Job, tensor: int) -> bool:
    """Return whether `tensor` divides heads, MLP width and vocabulary.

    It need not divide the KV heads.
    """
    c = job.model
    return not any(size % tensor for size in (c.num_heads, c.mlp_dim, c.vocab_size))


def _slices(job, count, mesh):
    ways = mesh.data * mesh.fsdp * mesh.expert
    batch = count // job.loop.minibatches
    sizes = [size for size in _divisors(batch) if size % ways == 0]
    for size in sizes:
        for remat in ("none", "block"):
            micro = 0 if size == batch else size
            loop = dataclasses.replace(job.loop, microbatch_prompts=micro, remat=remat)
            decode = job.decode.with_rollout(prompts_per_step=count)
            variant = dataclasses.replace(job, mesh=mesh, loop=loop, decode=decode)
            yield _changes(job, variant), variant


def _changes(job: Job, variant: Job) -> dict[str, Any]:
    """Return the config fields that turn `job` into `variant`, always with the mesh."""
    fields: dict[str, Any] = {
        f"mesh.{axis}": getattr(variant.mesh, axis)
        for axis in AXES
        if axis in ("data", "fsdp", "tensor")
        or (getattr(job.mesh, axis), getattr(variant.mesh, axis)) != (1, 1)
    }
    if variant.loop.microbatch_prompts != job.loop.microbatch_prompts:
        fields["train.microbatch_prompts"] = variant.loop.microbatch_prompts
    if variant.loop.remat != job.loop.remat:
        fields["train.remat"] = variant.loop.remat
    if variant.rollout.prompts_per_step != job.rollout.prompts_per_step:
        fields["rollout.prompts_per_step"] = variant.rollout.prompts_per_step
    return fields


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
