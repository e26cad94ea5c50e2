"""The rollout phase with its verification: from problems to a batch with rewards."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.loop.batch_metrics import group_metrics, is_mixed
from jaxrl_surrogate.loop.verification import Verification
from jaxrl_surrogate.rollout import RolloutConfig, Sampler, SampleRequest
from jaxrl_surrogate.storage.reward_journal import RewardJournal
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts


@dataclasses.dataclass(frozen=True)
class Collector:
    """A sampler together with the verification of what it samples.

    The host encodes and decodes text; the sampler generates tokens. All arrays are
    NumPy arrays.
    """

    sampler: Sampler
    rollout: RolloutConfig
    stop_tokens: tuple[int, ...]
    seed: int
    verification: Verification
    stream: str = "rollout"  # the random stream; evaluation has its own

    def sample(self, problems: list[Problem], step: int) -> tuple[Prompts, Completions]:
        """Sample M completions of each problem with the random keys of a step.

        Raises:
          SamplerError: see `Sampler`.
        """
        length, tokenizer = self.rollout.max_prompt_length, self.verification.tokenizer
        prompts = Prompts(*encode_prompts(problems, tokenizer, length))
        completions = self.sampler.sample(
            SampleRequest(
                prompts, self.rollout, self.stop_tokens, self.seed, self.stream, step
            )
        )
        return prompts, completions


def collect_batch(
    collector: Collector,
    prompts: PromptStream,
    step: int,
    refill_rounds: int = 0,
    on_phase: Callable[[str], None] = lambda phase: None,
    on_notes: Callable[[dict[str, int]], None] = lambda notes: None,
    on_sampled: Callable[[Prompts, Completions], None] = lambda *sampled: None,
    journal: RewardJournal | None = None,
) -> tuple[Batch, dict[str, float]]:
    """Collect a step's batch; optionally replace groups whose rewards are all equal.

    The replacement is dynamic sampling (DAPO, arXiv 2503.14476). While some groups are
    not mixed (all correct or all incorrect) and rounds are left, fresh prompts are
    sampled, and their mixed groups replace those groups in stream order. Groups for
    which no replacement was found stay in the batch; the weights that the update gives
    them must be 0.

    Up to one constant that all prompts share, each prompt then contributes what its
    mixed groups contribute. So the batch estimates the gradient of the objective of
    mixed groups (`objectives.mixed_groups`). It equals the rule's own objective if the
    rule gives no weight to all-correct and all-incorrect groups, as centred rules do.
    Sampling the same prompt again until its group is mixed would change every
    objective.

    Args:
      collector: samples with the policy that its sampler holds, and verifies.
      prompts: the run's prompt stream; the call advances it.
      step: the step whose random keys are used; rounds differ by their prompt ids.
      refill_rounds: the largest number of further rounds of G prompts.
      on_phase: called with the name of each phase as it starts.
      on_notes: called with the count of each verifier note, if there are any.
      on_sampled: called with prompts and completions before they are verified, only if
        `refill_rounds` is 0.
      journal: stores the rewards as they come, only if `refill_rounds` is 0.

    Returns:
      A batch of exactly G groups, and metrics of the collection.

    Raises:
      VerifierError: as `Verification.verify_step`.
      SamplerError: see `Sampler`.
    """
    num_prompts = collector.rollout.prompts_per_step
    kept, rounds, seen, mixed = None, 0, 0, 0
    while True:
        problems = prompts.take(num_prompts)
        on_phase("rollout")
        sampled = collector.sample(problems, step)
        if not refill_rounds:
            on_sampled(*sampled)
        on_phase("verify")
        once = None if refill_rounds else journal
        batch = collector.verification.verify_step(
            problems, *sampled, step, on_notes, once
        )
        signal = is_mixed(batch)
        seen, mixed = seen + num_prompts, mixed + int(signal.sum())
        kept = batch if kept is None else _refill(kept, batch)
        if rounds == refill_rounds or is_mixed(kept).all():
            break
        rounds += 1
    return kept, group_metrics(kept, mixed / seen, rounds)


def _refill(kept: Batch, fresh: Batch) -> Batch:
    """Replace kept groups that are not mixed by fresh groups that are."""
    places = np.flatnonzero(~is_mixed(kept))
    sources = np.flatnonzero(is_mixed(fresh))[: len(places)]
    places = places[: len(sources)]

    def put(old, new):
        out = np.array(old)
        out[places] = new[sources]
        return out

    return jax.tree.map(put, kept, fresh)
