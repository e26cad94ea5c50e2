"""The verification phase: completions in, a batch with rewards out."""

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
    """Has completions judged by a task's verifier, on the host."""

    task: Task
    tokenizer: Tokenizer
    config: TaskConfig  # its fields `verify_*`
    reward_mode: RewardMode  # how the objective takes rewards
    # What a completion cut at the length limit is worth: what the verifier says of it,
    # nothing, or no verdict (its group is then smaller, and what is ascended another
    # thing: `objectives.dropped_samples`).
    overlong: Literal["verify", "zero", "mask"] = "verify"

    def texts(self, completions: Completions) -> list[list[str]]:
        """Decode completions, their stop tokens left out."""
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
        """Attach rewards; those in the journal are taken from it, others written to it.

        Returns the batch, and (G, M) what the verifier noted of each completion that
        was judged here and now.
        """
        rewards = np.zeros(completions.lengths.shape, np.float32)
        mask = np.zeros(completions.lengths.shape, bool)
        known = {} if journal is None else journal.known(prompts, completions)
        for group, (of, counts) in known.items():
            rewards[group], mask[group] = of, counts
        # Each host judges every so many-th group.
        mine = range(jax.process_index(), len(problems), jax.process_count())
        left = [group for group in mine if group not in known]
        texts, notes = self.texts(completions), np.full(rewards.shape, "", object)
        # In pieces that keep all processes busy, so that little is lost with one.
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
        """Attach rewards to what a step trains on, and check that it can.

        `on_notes` is told how often each verifier note came, before a refusal too.

        Raises:
          VerifierError: as `check_verdicts`. The journal is then empty: a mended
            verifier judges all of it again.
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
        """Prompt and completion of one sample of a batch."""
        tokens, length = batch.prompts.tokens[group], batch.prompts.lengths[group]
        done = batch.completions
        completion = done.tokens[group, sample][: done.lengths[group, sample]]
        decode = self.tokenizer.decode
        return decode(tokens[:length].tolist()), decode(completion.tolist())

    def graded_warning(self, batch: Batch) -> str | None:
        """As `verdicts.graded_warning`, of a batch."""
        return graded_warning(
            self.task,
            batch.rewards,
            batch.reward_mask,
            lambda g, m: self.sample_text(batch, g, m),
        )


def sample_rows(verification: Verification, batch: Batch, count: int) -> list[dict]:
    """A few completions of a batch with their rewards, one of each prompt."""
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
