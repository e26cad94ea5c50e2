"""Unbiased pass@k of evaluations, with intervals over prompts. Host-side, float64."""

import dataclasses
import statistics

import numpy as np

from jaxrl_surrogate.errors import FieldError


@dataclasses.dataclass(frozen=True, eq=False)
class PassAtKCurve:
    """pass@k for every k up to the number of samples, mean over prompts."""

    k: np.ndarray  # (n,) int, 1 .. n
    mean: np.ndarray  # (n,) float64
    low: np.ndarray  # (n,) float64, lower end of the interval
    high: np.ndarray  # (n,) float64, upper end of the interval
    confidence: float
    num_prompts: int


def pass_at_k(num_samples, num_correct, k) -> np.ndarray:
    """Unbiased estimate of pass@k = 1 - (1 - p)^k from c correct answers among n.

        1 - C(n - c, k) / C(n, k)            (Chen et al., arXiv 2107.03374, eq. 1)

    The ratio is the product over j < k of (n - c - j) / (n - j): it cannot overflow,
    and it is exactly 0 where every k samples contain a correct one.

    Args:
      num_samples: n, int or int array.
      num_correct: c, int or int array, 0 <= c <= n.
      k: int or int array, 1 <= k <= n.

    Returns:
      float64 of the shape the three broadcast to.

    Raises:
      ValueError: outside these ranges. For k > n no unbiased estimate exists (a
        polynomial of degree k cannot be met with n samples).

    >>> pass_at_k(4, np.array([0, 1, 4]), 2).tolist()
    [0.0, 0.5, 1.0]
    """
    n, c, k = np.broadcast_arrays(num_samples, num_correct, k)
    for name, value in (("num_samples", n), ("num_correct", c), ("k", k)):
        if value.dtype.kind not in "iu":
            raise ValueError(f"{name}: expected integers, got {value.dtype}")
    n, c, k = (value.astype(np.int64) for value in (n, c, k))
    _refuse("num_correct", c, (c < 0) | (c > n), "between 0 and num_samples")
    _refuse(
        "k",
        k,
        (k < 1) | (k > n),
        "between 1 and num_samples; draw more samples for a larger k",
    )
    miss = np.ones(n.shape)
    for j in range(int(k.max(initial=0))):
        factor = np.maximum(n - c - j, 0) / np.maximum(n - j, 1)
        miss = np.where(j < k, miss * factor, miss)
    return 1 - miss


def pass_at_k_curve(
    num_correct: np.ndarray, num_samples: int, confidence: float = 0.95
) -> PassAtKCurve:
    """Mean pass@k over prompts, for every k up to n, with intervals over prompts.

    The interval answers: other prompts from the same source, n new samples of each. A
    prompt's estimate x lies in [0, 1] and is unbiased, so prompts are the independent
    units and the sampling noise is in their spread. Normal and bootstrap intervals
    collapse to a point where all prompts agree (none solved, all solved, or a single
    prompt). We use the construction of Agresti and Coull (1998) for means in [0, 1]:
    add z^2 / 2 prompts at 0 and as many at 1, then take mean +- z sd / sqrt(n + z^2).
    With one sample a prompt it is exactly their binomial interval; it never has zero
    width, always contains the mean, and tends to the normal interval as prompts grow.
    Intervals of different k are not joint.

    Args:
      num_correct: (prompts,) int, correct answers of each prompt among n.
      num_samples: n.
      confidence: of each interval, in (0, 1).

    Returns:
      The curve, k = 1 .. n.

    Raises:
      ValueError: without prompts, or outside the ranges of `pass_at_k`.

    >>> curve = pass_at_k_curve(np.array([0, 1, 2, 2]), 2)
    >>> curve.mean.tolist()
    [0.625, 0.75]
    """
    estimates = _estimates(num_correct, num_samples)
    low, high = _interval(estimates, _z(confidence))
    return PassAtKCurve(
        k=np.arange(1, num_samples + 1),
        mean=estimates.mean(0),
        low=low,
        high=high,
        confidence=confidence,
        num_prompts=len(estimates),
    )


def pass_at_k_difference(
    num_correct: np.ndarray,
    baseline_correct: np.ndarray,
    num_samples: int,
    confidence: float = 0.95,
) -> PassAtKCurve:
    """Mean difference of pass@k on the same prompts, with intervals over prompts.

    Pairing removes what prompts have in common. The interval combines those of the two
    means with their correlation over prompts (Newcombe, 1998, method 10 for paired
    proportions), so it keeps a width where nothing varies.

    Args:
      num_correct: (prompts,) int, correct answers of each prompt among n.
      baseline_correct: (prompts,) int, of the same prompts in the same order.
      num_samples: n, of both.
      confidence: of each interval, in (0, 1).

    Returns:
      The curve of `num_correct` minus `baseline_correct`, values in [-1, 1].

    Raises:
      ValueError: as `pass_at_k_curve`, or where the two differ in length.

    >>> pass_at_k_difference(np.array([2, 1]), np.array([1, 1]), 2).mean.tolist()
    [0.25, 0.0]
    """
    ours = _estimates(num_correct, num_samples)
    theirs = _estimates(baseline_correct, num_samples)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"baseline_correct: expected {len(ours)} prompts, the ones of num_correct, "
            f"got {len(theirs)}"
        )
    z = _z(confidence)
    (low, high), (base_low, base_high) = _interval(ours, z), _interval(theirs, z)
    mean, base = ours.mean(0), theirs.mean(0)
    covariance = ((ours - mean) * (theirs - base)).mean(0)
    scale = ours.std(0) * theirs.std(0)
    correlation = np.divide(
        covariance, scale, out=np.zeros_like(scale), where=scale > 1e-12
    ).clip(-1, 1)

    def reach(one, other):
        return np.sqrt(np.maximum(one**2 - 2 * correlation * one * other + other**2, 0))

    difference = mean - base
    return PassAtKCurve(
        k=np.arange(1, num_samples + 1),
        mean=difference,
        low=np.maximum(difference - reach(mean - low, base_high - base), -1),
        high=np.minimum(difference + reach(high - mean, base - base_low), 1),
        confidence=confidence,
        num_prompts=len(ours),
    )


def _estimates(num_correct, num_samples):
    """(prompts, n) unbiased pass@k of each prompt and each k."""
    num_correct = np.asarray(num_correct)
    if num_correct.ndim != 1 or num_correct.size == 0:
        raise ValueError(
            f"num_correct: expected the counts of at least one prompt, shape "
            f"(prompts,), got shape {num_correct.shape}"
        )
    k = np.arange(1, num_samples + 1)
    return pass_at_k(num_samples, num_correct[:, None], k[None, :])


def _interval(estimates, z):
    """Ends of the interval of the mean over the leading axis, both inside [0, 1]."""
    size = len(estimates) + z**2
    centre = (estimates.sum(0) + z**2 / 2) / size
    spread = (estimates**2).sum(0) + z**2 / 2 - size * centre**2
    half = z * np.sqrt(np.maximum(spread, 0)) / size
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def _z(confidence):
    if not 0 < confidence < 1:
        raise FieldError("confidence", confidence, "between 0 and 1")
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def _refuse(name, values, wrong, expected):
    if wrong.any():
        raise FieldError(name, values[wrong][0], expected)
