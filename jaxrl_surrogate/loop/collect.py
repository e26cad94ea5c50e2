"""The rollout phase with its verification: problems in, a batch with rewards out."""

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
    """Asks a sampler for completions of problems, and has them verified.

    The host does text, the sampler does the rest. All arrays are NumPy.
    """

    sampler: Sampler
    rollout: RolloutConfig
    stop_tokens: tuple[int, ...]
    seed: int
    verification: Verification
    stream: str = "rollout"  # the random stream; evaluation has its own

    def sample(self, problems: list[Problem], step: int) -> tuple[Prompts, Completions]:
        """Sample M completions of each problem at a step's random stream.

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
    """Collect a step's batch, with bounded refilling of groups without signal.

    Dynamic sampling (DAPO, arXiv 2503.14476): while some groups are all correct or all
    wrong and rounds are left, fresh prompts are sampled and their mixed groups take
    those places, in stream order. A prompt then contributes what its mixed groups do,
    times one constant that all prompts share: the objective is that of mixed groups
    (`objectives.mixed_groups`), the rule's own where all-correct and all-incorrect
    groups weigh nothing in it, as in centred rules. Those that no group took the place
    of are kept; the weights given to the update must be 0 for them. Sampling the same
    prompt again until its group is mixed would change every objective.

    Args:
      collector: samples, by the policy that its sampler has, and verifies.
      prompts: the run's prompt stream, advanced.
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
    """Put fresh groups with signal in the places of kept groups without."""
    places = np.flatnonzero(~is_mixed(kept))
    sources = np.flatnonzero(is_mixed(fresh))[: len(places)]
    places = places[: len(sources)]

    def put(old, new):
        out = np.array(old)
        out[places] = new[sources]
        return out

    return jax.tree.map(put, kept, fresh)
