"""Where a step's rollout comes from: the store, or the sampler and the verifier.

A rollout is stored before it is verified, and its rewards as they come, so that a kill
loses no completion that was sampled.
"""

import dataclasses
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Batch, batch_shapes
from jaxrl_surrogate.loop.batch_metrics import batch_metrics, group_metrics, is_mixed
from jaxrl_surrogate.loop.collect import Collector, collect_batch
from jaxrl_surrogate.rollout import RolloutConfig
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.reward_journal import RewardJournal, keep_only
from jaxrl_surrogate.tasks.prompts import PromptStream
from jaxrl_surrogate.telemetry.run_log import RunLog


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What a step is trained on."""

    batch: Batch  # of NumPy arrays
    metrics: dict[str, float]
    position: dict  # of the prompt stream after it, as JSON values


class RolloutSource(Protocol):
    """Gives the rollout of each step; it decides which policy samples it.

    Each sample says so itself: `Completions.policy_step`.
    """

    def load(self, params: models.Params, version: int) -> None:
        """Take the newest policy, that after step `version`.

        Its arrays live until the update after the next rollout.
        """

    def next(self, step: int) -> Rollout:
        """The rollout of a step; steps come in order.

        Raises:
          SamplerError: no completions came; see `Sampler`.
          VerifierError: too few verdicts; see `Verification.verify_step`.
        """


class SynchronousSource:
    """Samples the rollout of a step with the parameters that the step begins with."""

    def __init__(
        self,
        collector: Collector,
        prompts: PromptStream,
        store: RunCheckpoints,
        log: RunLog,
        directory: Path,
        *,
        refill_rounds: int = 0,
        save_rollouts: bool = True,
    ):
        """Take over the prompt stream; see `collect_batch` for `refill_rounds`.

        Args:
          collector: samples and verifies.
          prompts: the run's prompt stream.
          store: where rollouts are stored, if `save_rollouts`, and looked for.
          log: told of phases, notes of verifiers and damage.
          directory: for the rewards of a rollout, as they come.
          refill_rounds: of dynamic sampling.
          save_rollouts: store each rollout as soon as it is sampled.
        """
        self._collector, self._prompts = collector, prompts
        self._store, self._log, self._directory = store, log, directory
        self._refill_rounds, self._save_rollouts = refill_rounds, save_rollouts
        self._params, self._version = None, 0

    def load(self, params: models.Params, version: int) -> None:
        """See `RolloutSource`; the sampler gets it when it has to sample."""
        self._params, self._version = params, version

    def next(self, step: int) -> Rollout:
        """The stored rollout of the step if it is usable, else a new one."""
        store, log, prompts = self._store, self._log, self._prompts
        policy = ""
        if self._save_rollouts or step in store.rollout_steps():
            policy = digests.policy_digest(self._params)
        like = _batch_like(self._collector.rollout)
        stored = store.sound_rollout(step, like, policy, log.damage)
        keep_only(self._directory, {step, *store.rollout_steps()})
        # Each host judges its share, and would have to read the others' files.
        journal = None
        if jax.process_count() == 1:
            journal = RewardJournal(self._directory / f"{step}.jsonl", log.damage)
        if stored is not None:
            batch, meta = stored
            if "metrics" not in meta:  # stored before it was verified
                batch, metrics = self._verified(batch, meta, journal, step)
            else:
                metrics = meta["metrics"]
            prompts.restore(meta["prompts"])
            metrics = batch_metrics(batch, step) | metrics
            return Rollout(batch, metrics, meta["prompts"])
        before = prompts.state()

        def save(sampled, completions):
            shape = completions.lengths.shape
            rewards = np.zeros(shape, np.float32), np.zeros(shape, bool)
            meta = {"prompts": prompts.state(), "before": before, "policy": policy}
            store.save_rollout(step, Batch(sampled, completions, *rewards), meta)

        early = self._save_rollouts and not self._refill_rounds
        self._collector.sampler.load(self._params, self._version)
        batch, metrics = collect_batch(
            self._collector,
            prompts,
            step,
            self._refill_rounds,
            on_phase=lambda phase: log.event(step, phase),
            on_notes=lambda notes: log.verifier(step, notes),
            on_sampled=save if early else lambda *sampled: None,
            journal=journal if early else None,
        )
        position = prompts.state()
        if self._save_rollouts and not early:
            meta = {"prompts": position, "metrics": metrics, "policy": policy}
            store.save_rollout(step, batch, meta)
        return Rollout(batch, batch_metrics(batch, step) | metrics, position)

    def _verified(self, batch, meta, journal, step):
        """A stored rollout with the rewards that it was stored without, and metrics."""
        self._prompts.restore(meta["before"])
        problems = self._prompts.take(self._collector.rollout.prompts_per_step)
        self._log.event(step, "verify")
        batch = self._collector.verification.verify_step(
            problems,
            batch.prompts,
            batch.completions,
            step,
            lambda notes: self._log.verifier(step, notes),
            journal,
        )
        return batch, group_metrics(batch, float(is_mixed(batch).mean()), 0)


def _batch_like(sizes: RolloutConfig) -> Batch:
    """NumPy arrays of the shapes of a step's batch, to restore one into."""
    shapes = batch_shapes(
        sizes.prompts_per_step,
        sizes.group_size,
        sizes.max_prompt_length,
        sizes.max_completion_length,
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
