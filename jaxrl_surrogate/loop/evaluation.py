"""Evaluation on held-out problems: unbiased pass@k, intervals, greedy accuracy."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np

from jaxrl_surrogate.loop.collect import Collector
from jaxrl_surrogate.loop.verdicts import check_verdicts
from jaxrl_surrogate.objectives.pass_at_k import PassAtKCurve, pass_at_k_curve
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.telemetry.metric_names import evaluated_ks


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    num_correct: np.ndarray  # (prompts,) int, correct completions of `num_samples`
    num_samples: int
    curve: PassAtKCurve
    greedy: float  # fraction of prompts whose greedy completion is correct
    problems: list[Problem]
    texts: list[list[str]]  # sampled completions, [prompt][sample]
    rewards: np.ndarray  # (prompts, samples) float32, 0 where there is no verdict
    mask: np.ndarray  # (prompts, samples) bool, False where there is no verdict
    notes: np.ndarray  # (prompts, samples) what the verifier noted, "" for nothing

    @property
    def note_counts(self) -> dict[str, int]:
        """Return how often the verifier gave each note."""
        return dict(Counter(self.notes[self.notes != ""]))

    def metrics(self) -> dict[str, float]:
        """Return the logged metrics: pass@k for some k (`evaluated_ks`) and greedy."""
        return self.scores(evaluated_ks(self.num_samples))

    def row(self) -> dict[str, object]:
        """Return the counts and the pass@k curve of the evaluation as JSON values."""
        return {
            "problems": [problem.id for problem in self.problems],
            "correct": self.num_correct.tolist(),
            "verified": self.mask.sum(-1).tolist(),
            "samples": self.num_samples,
            "greedy": self.greedy,
            "pass@k": self.curve.mean.tolist(),
            "pass@k_low": self.curve.low.tolist(),
            "pass@k_high": self.curve.high.tolist(),
        }

    def scores(self, ks: Iterable[int] | None = None) -> dict[str, float]:
        """Return pass@k with its confidence interval and the greedy accuracy by name.

        Args:
          ks: the values of k; None means every k up to `num_samples`.
        """
        out = {}
        for k in map(int, self.curve.k if ks is None else ks):
            out[f"eval/pass@{k}"] = float(self.curve.mean[k - 1])
            out[f"eval/pass@{k}_low"] = float(self.curve.low[k - 1])
            out[f"eval/pass@{k}_high"] = float(self.curve.high[k - 1])
        problems = float(len(self.problems))
        return out | {"eval/greedy": self.greedy, "eval/problems": problems}


def evaluate(
    collector: Collector,
    problems: list[Problem],
    batch_prompts: int,
) -> Evaluation:
    """Sample each problem `group_size` times and once greedily, and verify all.

    The random keys do not depend on the training step. Evaluations of two checkpoints
    share them, so their difference is less noisy than with independent keys.

    Args:
      collector: has the sampling settings and group size of the evaluation; its sampler
        holds the policy.
      problems: the held-out problems, at least one.
      batch_prompts: prompts sampled at once; the last batch is padded to this size.

    Raises:
      VerifierError: the sampled completions fail `check_verdicts`.
      SamplerError: see `Sampler`.
    """
    greedy = dataclasses.replace(
        collector,
        rollout=dataclasses.replace(
            collector.rollout, group_size=1, sampling=SamplingConfig(temperature=0.0)
        ),
    )
    verification = collector.verification
    sampled, texts, greedy_right = [], [], []
    for start in range(0, len(problems), batch_prompts):
        part = problems[start : start + batch_prompts]
        padded = part + [part[-1]] * (batch_prompts - len(part))
        prompts, completions = collector.sample(padded, 0)
        batch, notes = verification.verify(padded, prompts, completions)
        found = batch.rewards, batch.reward_mask, notes
        sampled.append([values[: len(part)] for values in found])
        texts += verification.texts(completions)[: len(part)]
        batch, _ = verification.verify(padded, *greedy.sample(padded, 0))
        greedy_right.append(_correct(batch.rewards, batch.reward_mask)[: len(part)])
    rewards, mask, notes = map(np.concatenate, zip(*sampled, strict=True))
    check_verdicts(
        verification.task,
        verification.config.verify_max_failures,
        verification.reward_mode,
        rewards,
        mask,
        np.ones_like(mask),
        notes,
        lambda group, sample: (problems[group].prompt, texts[group][sample]),
        "evaluation",
    )
    num_correct = _correct(rewards, mask)
    num_samples = collector.rollout.group_size
    return Evaluation(
        num_correct=num_correct,
        num_samples=num_samples,
        curve=pass_at_k_curve(num_correct, num_samples),
        greedy=float(np.concatenate(greedy_right).mean()),
        problems=problems,
        texts=texts,
        rewards=rewards,
        mask=mask,
        notes=notes,
    )


def _correct(rewards: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return (G,) counts of correct completions; one without a verdict is incorrect."""
    return ((rewards >= 0.5) & mask).sum(-1)
