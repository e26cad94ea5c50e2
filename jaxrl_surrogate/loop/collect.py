"""The rollout and verification phases: prompts in, a batch with rewards out."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.loop.verdicts import (
    check_verdicts,
    graded_warning,
)
from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.parallel import hosts, partition
from jaxrl_surrogate.rollout import DecodeConfig, rollout
from jaxrl_surrogate.storage.reward_journal import RewardJournal
from jaxrl_surrogate.storage.stops import VerifierError
from jaxrl_surrogate.tasks import Problem, Task, Tokenizer, verify_all
from jaxrl_surrogate.tasks.config import TaskConfig
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts


@dataclasses.dataclass(frozen=True)
class Collector:
    """Samples completions of problems and has them verified.

    The host does text, the device does the rest. All arrays that come back are NumPy.
    """

    model: models.DecoderConfig
    decode: DecodeConfig
    task: Task
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh
    seed: int
    verification: TaskConfig  # its fields `verify_*`
    reward_mode: RewardMode  # how the objective takes rewards
    stream: str = "rollout"  # the random stream; evaluation has its own
    # What a completion cut at the length limit is worth: what the verifier says of it,
    # nothing, or no verdict (its group is then smaller, and what is ascended another
    # thing: `objectives.dropped_samples`).
    overlong: Literal["verify", "zero", "mask"] = "verify"

    def sample(
        self,
        params: models.Params,
        problems: list[Problem],
        step: int,
        policy_step: int,
    ) -> tuple[Prompts, Completions]:
        """Sample M completions of each problem at a step's random stream.

        `policy_step` is the step after which the policy had these parameters.
        """
        length = self.decode.rollout.max_prompt_length
        prompts = Prompts(*encode_prompts(problems, self.tokenizer, length))
        placed = jax.device_put(prompts, partition.batch_sharding(self.mesh))
        key = rng.stream_key(self.seed, self.stream, step)
        completions = rollout(
            self.model, self.decode, params, placed, key, self.mesh, policy_step
        )
        return prompts, hosts.gather(completions)

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
            size = -(-4 * max(1, self.verification.verify_workers) // rewards.shape[1])
        for piece in (left[i : i + size] for i in range(0, len(left), size)):
            rewards[piece], mask[piece], notes[piece] = verify_all(
                self.task,
                [problems[group] for group in piece],
                [texts[group] for group in piece],
                workers=self.verification.verify_workers,
                timeout_s=self.verification.verify_timeout_s,
                memory_mb=self.verification.verify_memory_mb,
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
                self.verification.verify_max_failures,
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


def sample_rows(collector: Collector, batch: Batch, count: int) -> list[dict]:
    """A few completions of a batch with their rewards, one of each prompt."""
    count = min(count, len(batch.rewards))
    texts = [collector.sample_text(batch, row, 0) for row in range(count)]
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


def is_mixed(batch: Batch) -> np.ndarray:
    """(G,) bool: groups whose verified rewards are not all equal.

    The others carry no gradient under any centred objective; uncentred ones may give
    them weight (`objectives.mixed_groups`).
    """
    highest = np.where(batch.reward_mask, batch.rewards, -np.inf).max(-1)
    lowest = np.where(batch.reward_mask, batch.rewards, np.inf).min(-1)
    return highest > lowest


def collect_batch(
    collector: Collector,
    params: models.Params,
    prompts: PromptStream,
    num_prompts: int,
    step: int,
    refill_rounds: int = 0,
    on_phase: Callable[[str], None] = lambda phase: None,
    on_notes: Callable[[dict[str, int]], None] = lambda notes: None,
    on_sampled: Callable[[Prompts, Completions], None] = lambda *sampled: None,
    journal: RewardJournal | None = None,
) -> tuple[Batch, dict[str, float]]:
    """Collect a step's batch, with bounded refilling of groups without signal.

    Dynamic sampling (DAPO, arXiv 2503.14476): while some groups are all right or all
    wrong and rounds are left, fresh prompts are sampled and their mixed groups take
    those places, in stream order. A prompt then contributes what its mixed groups do,
    times one constant that all prompts share: the objective is that of mixed groups
    (`objectives.mixed_groups`), the rule's own where all-right and all-wrong groups
    weigh nothing in it, as in centred rules. Those that no group took the place of are
    kept; the weights given to the update must be 0 for them. Sampling the same prompt
    again until its group is mixed would change every objective.

    Args:
      collector: samples and verifies.
      params: of the policy.
      prompts: the run's prompt stream, advanced.
      num_prompts: G.
      step: names the random stream; prompt ids make the rounds differ.
      refill_rounds: at most this many further rounds of G prompts.
      on_phase: told of each phase as it starts.
      on_notes: told what verifiers said and how often, where they said something.
      on_sampled: told of prompts and completions before they are verified, where no
        others may take their places (`refill_rounds` 0).
      journal: of their rewards, then.

    Returns:
      A batch of exactly G groups, and metrics of the collection.

    Raises:
      VerifierError: as `Collector.verify_step`.
    """
    kept, rounds, seen, mixed = None, 0, 0, 0
    while True:
        problems = prompts.take(num_prompts)
        on_phase("rollout")
        sampled = collector.sample(params, problems, step, step - 1)
        if not refill_rounds:
            on_sampled(*sampled)
        on_phase("verify")
        once = None if refill_rounds else journal
        batch = collector.verify_step(problems, *sampled, step, on_notes, once)
        signal = is_mixed(batch)
        seen, mixed = seen + num_prompts, mixed + int(signal.sum())
        kept = batch if kept is None else _refill(kept, batch)
        if rounds == refill_rounds or is_mixed(kept).all():
            break
        rounds += 1
    return kept, group_metrics(kept, mixed / seen, rounds)


def group_metrics(batch: Batch, share: float, rounds: int) -> dict[str, float]:
    """How many groups had a gradient, of all sampled and of those that were kept."""
    return {
        "mixed_group_fraction": share,
        "mixed_group_fraction_kept": float(is_mixed(batch).mean()),
        "refill_rounds": rounds,
    }


def _refill(kept: Batch, fresh: Batch) -> Batch:
    """Put fresh groups with signal in the places of kept groups without."""
    places = np.flatnonzero(~is_mixed(kept))
    sources = np.flatnonzero(is_mixed(fresh))[: len(places)]
    places = places[: len(sources)]

    def put(old, new):
        out = np.array(old)
        out[places] = new[sources]
        return out

    return jax.tree.map(put, kept, fresh)


def batch_metrics(batch: Batch, step: int) -> dict[str, float]:
    """What the batch of a step says of the policy: rewards, groups, lengths, pass@M.

    "length" counts all tokens of a completion, "loss_tokens" those that the policy
    chose, of which "entropy" is a mean. "policy_lag" is how many steps the parameters
    that sampled are behind those that the step begins with.
    """
    mask, rewards = batch.reward_mask, batch.rewards
    sizes = mask.sum(-1)
    verified = sizes > 0
    correct = (rewards >= 0.5) & mask
    right = correct.sum(-1)
    lengths = batch.completions.lengths
    counted = batch.completions.loss_mask
    per_token = np.where(counted, batch.completions.sampler_logprobs, 0).sum()

    def share(of):
        return float(of[verified].mean()) if verified.any() else float("nan")

    return {
        "graded": float(((rewards != 0) & (rewards != 1))[mask].mean())
        if mask.any()
        else 0.0,
        "reward": float(rewards[mask].mean()) if mask.any() else float("nan"),
        "pass@1": share(right / np.maximum(sizes, 1)),
        f"pass@{rewards.shape[1]}": share(right > 0),
        "groups_all_correct": share(right == sizes),
        "groups_all_incorrect": share(right == 0),
        "unverified": float(1 - mask.mean()),
        "truncated": float(batch.completions.truncated.mean()),
        "length": float(lengths.mean()),
        "length_max": float(lengths.max()),
        "loss_tokens": float(counted.sum(-1).mean()),
        "entropy": float(-per_token / max(counted.sum(), 1)),
        "completion_tokens": float(lengths.sum()),
        "policy_lag": float((step - 1 - batch.completions.policy_step).mean()),
    }
