"""Estimates a step's memory and time by formulas, to choose what to compile.

The formulas only need to rank candidates; the compiled programs decide.
"""

import dataclasses
import math

import jax
import numpy as np

from jaxrl_surrogate.lab.plan.collectives import Collective
from jaxrl_surrogate.lab.plan.job import Job, cache_arrays, decode_weights, shard_bytes
from jaxrl_surrogate.lab.plan.roofline import collective_seconds
from jaxrl_surrogate.lab.plan.topology import Topology
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.training import offload

# Compiled programs need about this factor more memory than the formulas say.
_SLACK = 1.25


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimated memory and time of a job on a mesh."""

    bytes: dict[str, float]  # peak bytes on one chip, by phase
    seconds: float | None  # of a step; None if the chip's figures are unknown

    def fits(self, usable: int) -> bool:
        """Return whether the estimate of every phase is within `usable` bytes."""
        return max(self.bytes.values()) <= usable


def model_flops(job: Job) -> dict[str, float]:
    """Return the flops of each phase of a step on all chips, without recomputation.

    They are two for each token and each parameter that it uses in a product, plus
    causal attention, and three times that with a backward pass. Prompts and completions
    count with their maximum lengths.
    """
    c, prompts = job.model, job.rollout.prompts_per_step
    table = c.vocab_size * c.embed_dim
    tables = 1 if c.tie_embeddings else 2
    blocks = c.num_active_params - tables * table
    length, read = job.rollout.max_completion_length, job.rollout.max_prompt_length
    completions = prompts * job.rollout.group_size
    seen = length * (length + 1) / 2 + length * read
    attention = 4 * c.num_layers * c.num_heads * c.head_dim
    forward = 2 * blocks * (completions * length + prompts * read)
    forward += 2 * table * completions * length
    forward += attention * (completions * seen + prompts * read * (read + 1) / 2)
    return {"rollout": forward, "update": 3 * forward * job.loop.epochs}


def estimate(job: Job, topology: Topology, mesh: jax.sharding.Mesh) -> Estimate:
    """Estimate the peak bytes of each phase on one chip, and the seconds of a step."""
    memory = {"rollout": _rollout_bytes(job, mesh), "update": _update_bytes(job, mesh)}
    chip = topology.chip
    if None in (chip.peak_flops, chip.hbm_bandwidth, chip.link_bandwidth):
        return Estimate(memory, None)
    return Estimate(memory, _update_seconds(job, topology, mesh) + _rollout_seconds(
        job, topology, mesh
    ))  # fmt: skip


def _state_bytes(job, mesh):
    """Return bytes on one device: trainable parameters, all parameters, other state.

    Other state is that of the optimizer, if it is on the device, and the reference
    policy of the KL term.
    """
    state = job.abstract_state(mesh)
    trainable, params, others = (
        sum(shard_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))
        for tree in (state.trainable, state.params, state.opt_state)
    )
    if isinstance(job.optimizer, offload.Offloaded):
        others = 0  # it is loaded when the activations are freed
    if job.loss.kl_coef:
        others += trainable
    return trainable, params, others


def _update_bytes(job, mesh):
    c, tensor = job.model, mesh.shape["tensor"]
    trainable, params, others = _state_bytes(job, mesh)
    micro = job.loop.microbatch_prompts or job.update_prompts
    rows = micro * job.rollout.group_size // partition.num_batch_shards(mesh)
    tokens = rows * job.rollout.max_completion_length / mesh.shape["sequence"]
    wide = np.dtype(c.compute_dtype).itemsize
    queries, mlp = c.num_heads * c.head_dim / tensor, c.mlp_dim / tensor
    if c.num_experts:  # rows of all expert shards, once for each expert that they use
        mlp = c.experts_per_token * mesh.shape["expert"] * (mlp + c.embed_dim)
    block = tokens * wide * (4 * c.embed_dim + 4 * queries + 4 * mlp)
    kept = 1 if job.loop.remat == "block" else 0
    residual = c.embed_dim / (tensor if c.embed_dim % tensor == 0 else 1)
    layers = tokens * wide * c.num_layers * residual
    if not kept:
        layers += c.num_layers * block * 0.75
    queried = min(512, job.rollout.max_completion_length / mesh.shape["sequence"])
    positions = job.rollout.max_completion_length + job.rollout.max_prompt_length
    scores = 3 * 4 * rows * c.num_heads / tensor * queried * positions
    chunk = max(1, job.loop.logprob_chunk // (micro * job.rollout.group_size))
    chunk = min(chunk, job.rollout.max_completion_length) / mesh.shape["sequence"]
    logits = 3 * 4 * rows * chunk * c.vocab_size / tensor
    tables = (
        (1 if c.tie_embeddings else 2) * 2 * 4 * c.vocab_size * c.embed_dim / tensor
    )
    gradients = trainable * (1 if micro == job.update_prompts else 2)
    work = gradients + layers + max(block + scores, logits) + tables
    return params + others + _SLACK * work


def _rollout_bytes(job, mesh):
    weights = sum(shard_bytes(*pair) for pair in decode_weights(job, mesh).values())
    cache = sum(shard_bytes(*pair) for pair in cache_arrays(job, mesh).values())
    # While the cache grows, the old and the new one exist together.
    _, params, others = _state_bytes(job, mesh)
    return params + others + _SLACK * (weights + 1.5 * cache)


def _update_seconds(job, topology, mesh):
    c, chip = job.model, topology.chip
    again = 4 / 3 if job.loop.remat == "block" else 1.0
    compute = model_flops(job)["update"] * again / mesh.size / chip.peak_flops
    parts = job.update_prompts // (job.loop.microbatch_prompts or job.update_prompts)
    passes = 3 if job.loop.remat == "block" else 2  # forward, again, backward
    wide = np.dtype(c.compute_dtype).itemsize
    split = mesh.shape["tensor"] * (mesh.shape["expert"] if c.num_experts else 1)
    weights = c.num_params * wide / split
    gathered = (
        parts * (passes + 1) * _seconds("all-gather", weights, "fsdp", topology, mesh)
    )
    shard = 4 * c.num_params / split / mesh.shape["fsdp"]
    summed = parts * sum(
        _seconds("all-reduce", shard, axis, topology, mesh)
        for axis in ("data", "sequence")
    )
    rows = (
        job.update_prompts * job.rollout.group_size / partition.num_batch_shards(mesh)
    )
    tokens = rows * job.rollout.max_completion_length / mesh.shape["sequence"]
    stream = tokens * c.embed_dim * wide
    moves = 2 * 2 * passes * c.num_layers  # two halves of a block, gather and scatter
    across = moves * _seconds("all-gather", stream, "tensor", topology, mesh)
    if c.num_experts:
        mixed = stream * mesh.shape["expert"]
        across += moves / 2 * _seconds("all-gather", mixed, "expert", topology, mesh)
    seen = 2 * tokens * mesh.shape["sequence"] * c.num_kv_heads * c.head_dim * wide
    across += (
        passes * c.num_layers * _seconds("all-gather", seen, "sequence", topology, mesh)
    )
    return compute + job.loop.updates * (gathered + summed + across)


def _rollout_seconds(job, topology, mesh):
    c, chip = job.model, topology.chip
    weights = sum(shard_bytes(*pair) for pair in decode_weights(job, mesh).values())
    cache = sum(shard_bytes(*pair) for pair in cache_arrays(job, mesh).values())
    rows = (
        job.rollout.prompts_per_step
        * job.rollout.group_size
        / partition.num_batch_shards(mesh)
    )
    rows /= mesh.shape["sequence"]
    flops = 2 * c.num_active_params / mesh.shape["tensor"] * rows
    token = max((weights + 0.5 * cache) / chip.hbm_bandwidth, flops / chip.peak_flops)
    wide = np.dtype(c.compute_dtype).itemsize
    sent = rows * c.embed_dim * wide
    token += 2 * c.num_layers * _seconds("all-reduce", sent, "tensor", topology, mesh)
    if c.num_experts:
        mixed = sent * mesh.shape["expert"]
        moves = 2 * c.num_layers
        token += moves * _seconds("all-gather", mixed, "expert", topology, mesh)
    logits = 4 * rows * c.vocab_size
    token += _seconds("all-gather", logits, "tensor", topology, mesh)
    return job.rollout.max_completion_length * token


def _seconds(kind, size, axis, topology, mesh):
    """Return the seconds of one collective of `size` bytes along a mesh axis."""
    if mesh.shape[axis] == 1:
        return 0.0
    place = mesh.axis_names.index(axis)
    ids = np.arange(mesh.size).reshape(mesh.devices.shape)
    groups = np.moveaxis(ids, place, -1).reshape(-1, mesh.shape[axis])
    each = Collective(kind, math.ceil(size), (), groups, False, "")
    return collective_seconds(each, topology, mesh)
