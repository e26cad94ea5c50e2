"""Small jobs for the tests of plans."""

import dataclasses

from jaxrl_surrogate import models, objectives
from jaxrl_surrogate.lab.plan import Job
from jaxrl_surrogate.loop.config import LoopConfig
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig
from jaxrl_surrogate.training.optimizer import OptimizerConfig, make_optimizer

# Every size differs from every other, so that shapes tell arrays apart.
MODEL = models.DecoderConfig(
    vocab_size=1152,
    num_layers=3,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=24,
    mlp_dim=160,
    qk_norm=True,
    tie_embeddings=False,
)


def small_job(mesh: MeshConfig, **fields) -> Job:
    """8 prompts, 4 completions of 20 tokens, two slices of accumulation."""
    model = fields.pop("model", MODEL)
    rollout = RolloutConfig(
        prompts_per_step=8,
        group_size=4,
        max_prompt_length=fields.pop("max_prompt_length", 12),
        max_completion_length=20,
    )
    job = Job(
        model=model,
        loss=LossConfig(),
        reward_mode="binary",
        loop=LoopConfig(microbatch_prompts=4, logprob_chunk=64, remat="block"),
        optimizer=make_optimizer(OptimizerConfig(), 10, models.logical_axes(model)),
        decode=DecodeConfig(rollout, (0,)),
        objective=objectives.table_family(objectives.advantages.get("rloo").table, 4),
        mesh=mesh,
    )
    return dataclasses.replace(job, **fields)
