"""Evaluation on held-out problems: unbiased pass@k, intervals, greedy accuracy."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxrl_surrogate import models
from jaxrl_surrogate.objectives.pass_at_k import PassAtKCurve, pass_at_k_curve
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.training.collect import Collector


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    num_correct: np.ndarray  # (prompts,) int, right answers among `num_samples`
    num_samples: int
    curve: PassAtKCurve
    greedy: float  # share of prompts whose greedy completion is right
    problems: list[Problem]
    texts: list[list[str]]  # sampled completions, [prompt][sample]

    def metrics(self) -> dict[str, float]:
        """Flat numbers for the log: pass@k for powers of two and n, greedy accuracy."""
        powers = [k for k in self.curve.k if k & (k - 1) == 0 or k == self.num_samples]
        return self.scores(powers)

    def scores(self, ks: Iterable[int] | None = None) -> dict[str, float]:
        """Flat numbers with the ends of intervals; `ks` None: every k up to n."""
        out = {}
        for k in map(int, self.curve.k if ks is None else ks):
            out[f"eval/pass@{k}"] = float(self.curve.mean[k - 1])
            out[f"eval/pass@{k}_low"] = float(self.curve.low[k - 1])
            out[f"eval/pass@{k}_high"] = float(self.curve.high[k - 1])
        return out | {"eval/greedy": self.greedy}


def evaluate(
    collector: Collector,
    params: models.Params,
    problems: list[Problem],
    batch_prompts: int,
) -> Evaluation:
    """Sample each problem `group_size` times and once greedily.

    The random stream does not depend on the training step: evaluations of two
    checkpoints share it, so their difference is less noisy than either.

    Args:
      collector: with the evaluation's sampling distribution and group size.
      params: of the policy.
      problems: the held-out problems, at least one.
      batch_prompts: prompts sampled at once; the last batch is padded to this size.
    """
    greedy = dataclasses.replace(
        collector,
        decode=dataclasses.replace(
            collector.decode, group_size=1, sampling=SamplingConfig(temperature=0.0)
        ),
    )
    right, texts, greedy_right = [], [], []
    for start in range(0, len(problems), batch_prompts):
        part = problems[start : start + batch_prompts]
        padded = part + [part[-1]] * (batch_prompts - len(part))
        prompts, completions = collector.sample(params, padded, 0)
        batch, _ = collector.verify(padded, prompts, completions)
        right.append(_correct(batch)[: len(part)])
        texts += collector.texts(completions)[: len(part)]
        batch = greedy.collect(params, padded, 0)
        greedy_right.append(_correct(batch)[: len(part)])
    num_correct = np.concatenate(right)
    num_samples = collector.decode.group_size
    return Evaluation(
        num_correct=num_correct,
        num_samples=num_samples,
        curve=pass_at_k_curve(num_correct, num_samples),
        greedy=float(np.concatenate(greedy_right).mean()),
        problems=problems,
        texts=texts,
    )


def _correct(batch) -> np.ndarray:
    """(G,) right answers; a completion without a verdict counts as wrong here."""
    return ((batch.rewards >= 0.5) & batch.reward_mask).sum(-1)
