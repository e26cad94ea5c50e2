"""The verification phase: from completions to a batch with rewards."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np

from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.loop.verdicts import check_verdicts, graded_warning
from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.storage.reward_journal import RewardJournal
from jaxrl_surrogate.storage.stops import VerifierError
from jaxrl_surrogate.tasks import Problem, Task, Tokenizer, verify_all
from jaxrl_surrogate.tasks.config import TaskConfig


@dataclasses.dataclass(frozen=True)
class Verification:
    """Runs a task's verifier on completions, on the host."""

    task: Task
    tokenizer: Tokenizer
    config: TaskConfig  # its fields `verify_*`
    reward_mode: RewardMode  # how the objective takes rewards
    # The reward of a completion that was cut at the length limit. "verify": the
    # verifier's; "zero": 0; "mask": none, so its group is smaller and training ascends
    # another objective (`objectives.dropped_samples`).
    overlong: Literal["verify", "zero", "mask"] = "verify"

    def texts(self, completions: Completions) -> list[list[str]]:
        """Decode completions to text, [group][sample], without their stop tokens."""
        return [
            [
                self.tokenizer.decode(tokens[:length].tolist())
                for tokens, length in zip(*group, strict=True)
            ]
            for group in zip(completions.tokens, completions.lengths, strict=True)
        ]

    def verify(
        self,
        problems: list[Problem],
        prompts: Prompts,
        completions: Completions,
        journal: RewardJournal | None = None,
    ) -> tuple[Batch, np.ndarray]:
        """Verify completions and return a batch with their rewards.

        Args:
          problems: the G problems.
          prompts: their prompts.
          completions: M completions of each prompt, NumPy arrays.
          journal: rewards that it holds are not computed again, and new ones are
            written to it; None: no journal.

        Returns:
          The batch, and a (G, M) array of str with the verifier's note on each
          completion that this call verified on this host.
        """
        rewards = np.zeros(completions.lengths.shape, np.float32)
        mask = np.zeros(completions.lengths.shape, bool)
        known = {} if journal is None else journal.known(prompts, completions)
        for group, (of, counts) in known.items():
            rewards[group], mask[group] = of, counts
        # Host h of n hosts verifies groups h, h + n, h + 2n, ...
        mine = range(jax.process_index(), len(problems), jax.process_count())
        left = [group for group in mine if group not in known]
        texts, notes = self.texts(completions), np.full(rewards.shape, "", object)
        # Pieces keep all workers busy, and a killed process loses at most one piece.
        size = len(problems)
        if journal is not None:
            size = -(-4 * max(1, self.config.verify_workers) // rewards.shape[1])
        for piece in (left[i : i + size] for i in range(0, len(left), size)):
            rewards[piece], mask[piece], notes[piece] = verify_all(
                self.task,
                [problems[group] for group in piece],
                [texts[group] for group in piece],
                workers=self.config.verify_workers,
                timeout_s=self.config.verify_timeout_s,
                memory_mb=self.config.verify_memory_mb,
            )
            for group in piece if journal is not None else ():
                journal.add(group, prompts, completions, rewards[group], mask[group])
        rewards, mask = hosts.added(rewards), hosts.added(mask)
        if self.overlong == "zero":
            rewards = np.where(completions.truncated, np.float32(0), rewards)
        elif self.overlong == "mask":
            mask = mask & ~completions.truncated
        return Batch(prompts, completions, rewards, mask), notes

    def verify_step(
        self,
        problems: list[Problem],
        prompts: Prompts,
        completions: Completions,
        step: int,
        on_notes: Callable[[dict[str, int]], None],
        journal: RewardJournal | None = None,
    ) -> Batch:
        """Verify the completions of a step and check that it can train on the rewards.

        Args:
          problems, prompts, completions, journal: as for `verify`.
          step: the step, for messages.
          on_notes: called with the count of each verifier note if there are any, also
            before an error.

        Raises:
          VerifierError: `check_verdicts` failed. The journal is then emptied, so that a
            corrected verifier judges all completions again.
        """
        batch, notes = self.verify(problems, prompts, completions, journal)
        if (notes != "").any():
            on_notes(dict(Counter(notes[notes != ""])))
        counted = np.ones(notes.shape, bool)
        if self.overlong == "mask":
            counted = ~completions.truncated
        try:
            check_verdicts(
                self.task,
                self.config.verify_max_failures,
                self.reward_mode,
                batch.rewards,
                batch.reward_mask,
                counted,
                notes,
                lambda g, m: self.sample_text(batch, g, m),
                f"step {step}",
            )
        except VerifierError:
            if journal is not None:
                journal.clear()
            raise
        return batch

    def sample_text(self, batch: Batch, group: int, sample: int) -> tuple[str, str]:
        """Return prompt and completion of one sample of a batch as text."""
        tokens, length = batch.prompts.tokens[group], batch.prompts.lengths[group]
        done = batch.completions
        completion = done.tokens[group, sample][: done.lengths[group, sample]]
        decode = self.tokenizer.decode
        return decode(tokens[:length].tolist()), decode(completion.tolist())

    def graded_warning(self, batch: Batch) -> str | None:
        """Return the warning of `verdicts.graded_warning` for a batch, or None."""
        return graded_warning(
            self.task,
            batch.rewards,
            batch.reward_mask,
            lambda g, m: self.sample_text(batch, g, m),
        )


def sample_rows(verification: Verification, batch: Batch, count: int) -> list[dict]:
    """Return the first completion of each of the first `count` prompts, as log rows."""
    count = min(count, len(batch.rewards))
    texts = [verification.sample_text(batch, row, 0) for row in range(count)]
    return [
        {
            "prompt": prompt,
            "completion": completion,
            "reward": float(batch.rewards[row, 0]),
            "verified": bool(batch.reward_mask[row, 0]),
            "length": int(batch.completions.lengths[row, 0]),
            "truncated": bool(batch.completions.truncated[row, 0]),
        }
        for row, (prompt, completion) in enumerate(texts)
    ]
