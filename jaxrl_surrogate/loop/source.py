"""Sources of rollouts: a stored rollout, or a new one from sampler and verifier.

A rollout is stored before it is verified, and its rewards are stored as they come. So a
killed process loses no completion of a finished rollout.
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
    """The batch that a step is trained on, with its metrics."""

    batch: Batch  # of NumPy arrays
    metrics: dict[str, float]
    position: dict  # state of the prompt stream after the rollout, as JSON values


class RolloutSource(Protocol):
    """Returns the rollout of each step and decides which policy samples it.

    `Completions.policy_step` records this policy for each sample.
    """

    def load(self, params: models.Params, version: int) -> None:
        """Receive the newest policy.

        Args:
          params: its parameters. The arrays stay valid until the update that follows
            the next rollout.
          version: the step whose update made them; 0 for the starting state.
        """

    def next(self, step: int) -> Rollout:
        """Return the rollout of a step; it is called for steps in order.

        Raises:
          SamplerError: the sampler returned no completions; see `Sampler`.
          VerifierError: the rewards cannot be used; see `Verification.verify_step`.
        """


class SynchronousSource:
    """Samples the rollout of each step with the parameters before its update."""

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
        """Store the parts; from then on only this source advances the prompt stream.

        Args:
          collector: samples and verifies.
          prompts: the run's prompt stream.
          store: the checkpoints, where stored rollouts are looked up, and where new
            ones are stored if `save_rollouts` is True.
          log: records phases, verifier notes and damage.
          directory: the folder of the reward journals.
          refill_rounds: rounds of dynamic sampling; see `collect_batch`.
          save_rollouts: whether to store rollouts: as soon as they are sampled, or,
            with `refill_rounds`, after verification.
        """
        self._collector, self._prompts = collector, prompts
        self._store, self._log, self._directory = store, log, directory
        self._refill_rounds, self._save_rollouts = refill_rounds, save_rollouts
        self._params, self._version = None, 0

    def load(self, params: models.Params, version: int) -> None:
        """See `RolloutSource`; the sampler loads the policy only when it samples."""
        self._params, self._version = params, version

    def next(self, step: int) -> Rollout:
        """Return the stored rollout of a step if it is usable, else a new one."""
        store, log, prompts = self._store, self._log, self._prompts
        policy = ""
        if self._save_rollouts or step in store.rollout_steps():
            policy = digests.policy_digest(self._params)
        like = _batch_like(self._collector.rollout)
        stored = store.sound_rollout(step, like, policy, log.damage)
        keep_only(self._directory, {step, *store.rollout_steps()})
        # With several hosts there is no journal: each host verifies only its groups,
        # and would have to read the journals of the others.
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
        """Verify a rollout that was stored without rewards.

        Returns the batch with rewards, and its metrics.
        """
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
    """Return a batch of NumPy zeros, with the shapes to restore a stored batch into."""
    shapes = batch_shapes(
        sizes.prompts_per_step,
        sizes.group_size,
        sizes.max_prompt_length,
        sizes.max_completion_length,
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
