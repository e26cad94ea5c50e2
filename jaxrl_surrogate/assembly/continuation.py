"""What a run that is there may be continued with: the role of every setting."""

from typing import Literal

Role = Literal["kept", "numbers", "operational"]

# What is stored was computed with it, and what follows would not belong to that. A
# continued run is refused another value.
_KEPT = """
    seed task.name task.options task.tokenizer
    model.preset model.overrides model.init_from model.compute_dtype
    rollout.prompts_per_step rollout.group_size rollout.max_prompt_length
    rollout.max_completion_length rollout.stop rollout.sampling.temperature
    rollout.sampling.top_k rollout.sampling.top_p rollout.sampling.min_p
    loss.normalization optimizer.name
    sft.steps sft.batch_size sft.optimizer.name sft.optimizer.learning_rate
    sft.optimizer.schedule sft.optimizer.warmup_steps sft.optimizer.final_fraction
    sft.optimizer.b1 sft.optimizer.b2 sft.optimizer.eps sft.optimizer.weight_decay
    sft.optimizer.clip_norm
"""
# The steps that follow are computed otherwise, and may be: the change is recorded with
# the step from which it holds. Where no step follows there is nothing to record, and
# the run would only be called by another name: a finished run is refused.
_NUMBERS = """
    objective.name objective.kind objective.options objective.rewards objective.method
    objective.baseline objective.prior objective.weight_options objective.schedule.to
    objective.schedule.options objective.schedule.begin objective.schedule.end
    objective.schedule.shape
    loss.policy loss.clip_low loss.clip_high loss.kl_coef loss.kl_estimator
    loss.entropy_coef
    optimizer.learning_rate optimizer.schedule optimizer.warmup_steps
    optimizer.final_fraction optimizer.b1 optimizer.b2 optimizer.eps
    optimizer.weight_decay optimizer.clip_norm
    train.steps train.epochs train.minibatches train.dynamic_sampling_rounds
    train.overlong
    eval.prompts eval.samples eval.temperature
"""
# Where and how it is computed, stored and shown: nothing but rounding changes.
_OPERATIONAL = """
    name run_dir
    task.verify_workers task.verify_timeout_s task.verify_memory_mb
    task.verify_max_failures
    rollout.gather_weights
    optimizer.offload sft.optimizer.offload
    train.microbatch_prompts train.logprob_chunk train.remat train.nonfinite_limit
    eval.every eval.batch_prompts
    checkpoint.every checkpoint.every_minutes checkpoint.rollouts checkpoint.keep_last
    checkpoint.keep_every checkpoint.keep_best checkpoint.best_metric checkpoint.best_is
    mesh.data mesh.fsdp mesh.tensor mesh.expert mesh.sequence mesh.slices
    log.every log.tensorboard log.completions_every log.completions
    log.digests log.digests_every
"""

ROLES: dict[str, Role] = {
    **dict.fromkeys(_KEPT.split(), "kept"),
    **dict.fromkeys(_NUMBERS.split(), "numbers"),
    **dict.fromkeys(_OPERATIONAL.split(), "operational"),
}


def role(path: str) -> Role:
    """The role of a field, or of an option in a bag, by its dotted path.

    >>> role("log.every"), role("objective.name"), role("task.options.max_digits")
    ('operational', 'numbers', 'kept')
    """
    while path and path not in ROLES:
        path = path.rpartition(".")[0]
    return ROLES.get(path, "kept")
