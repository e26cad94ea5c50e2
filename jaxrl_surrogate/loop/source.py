"""Where a step's rollout comes from: the store, or the sampler and the verifier.

A rollout is stored before it is verified, and its rewards as they come, so that a kill
loses no completion that was sampled.
"""

import jax
import numpy as np

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Batch, batch_shapes
from jaxrl_surrogate.loop.collect import (
    batch_metrics,
    collect_batch,
    group_metrics,
    is_mixed,
)
from jaxrl_surrogate.loop.run import Run
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.reward_journal import RewardJournal, keep_only
from jaxrl_surrogate.telemetry.run_log import RunLog


def next_rollout(
    run: Run, store: RunCheckpoints, params: models.Params, step: int, log: RunLog
) -> tuple[Batch, dict[str, float], dict]:
    """The rollout of a step: the stored one if it is usable, else a new one.

    Returns:
      The batch, its metrics, and the prompt stream's position after it.
    """
    stored_too = run.checkpoint.rollouts
    rounds = run.loop.dynamic_sampling_rounds
    rewards = run.directory / "checkpoints" / "rewards"
    policy = ""
    if stored_too or step in store.rollout_steps():
        policy = digests.policy_digest(params)
    stored = store.sound_rollout(step, _batch_like(run), policy, log.damage)
    keep_only(rewards, {step, *store.rollout_steps()})
    # Each host judges its share, and would have to read the others' files.
    journal = None
    if jax.process_count() == 1:
        journal = RewardJournal(rewards / f"{step}.jsonl", log.damage)
    if stored is not None:
        batch, meta = stored
        if "metrics" not in meta:  # stored before it was verified
            batch, metrics = _verified(run, batch, meta, journal, step, log)
        else:
            metrics = meta["metrics"]
        run.prompts.restore(meta["prompts"])
        return batch, batch_metrics(batch, step) | metrics, meta["prompts"]
    before = run.prompts.state()

    def save(prompts, completions):
        shape = completions.lengths.shape
        rewards = np.zeros(shape, np.float32), np.zeros(shape, bool)
        meta = {"prompts": run.prompts.state(), "before": before, "policy": policy}
        store.save_rollout(step, Batch(prompts, completions, *rewards), meta)

    early = stored_too and not rounds
    batch, metrics = collect_batch(
        run.collector,
        params,
        run.prompts,
        run.rollout.prompts_per_step,
        step,
        rounds,
        on_phase=lambda phase: log.event(step, phase),
        on_notes=lambda notes: log.verifier(step, notes),
        on_sampled=save if early else lambda *sampled: None,
        journal=journal if early else None,
    )
    position = run.prompts.state()
    if stored_too and not early:
        meta = {"prompts": position, "metrics": metrics, "policy": policy}
        store.save_rollout(step, batch, meta)
    return batch, batch_metrics(batch, step) | metrics, position


def _verified(
    run: Run,
    batch: Batch,
    meta: dict,
    journal: RewardJournal | None,
    step: int,
    log: RunLog,
):
    """A stored rollout with the rewards that it was stored without, and metrics."""
    run.prompts.restore(meta["before"])
    problems = run.prompts.take(run.rollout.prompts_per_step)
    log.event(step, "verify")
    batch = run.collector.verify_step(
        problems,
        batch.prompts,
        batch.completions,
        step,
        lambda notes: log.verifier(step, notes),
        journal,
    )
    return batch, group_metrics(batch, float(is_mixed(batch).mean()), 0)


def _batch_like(run: Run) -> Batch:
    """NumPy arrays of the shapes of a step's batch, to restore one into."""
    sizes = run.rollout
    shapes = batch_shapes(
        sizes.prompts_per_step,
        sizes.group_size,
        sizes.max_prompt_length,
        sizes.max_completion_length,
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
