"""Unbiased pass@k of evaluations with intervals over prompts (float64, on the host)."""

import dataclasses
import statistics

import numpy as np

from jaxrl_surrogate.errors import FieldError


@dataclasses.dataclass(frozen=True, eq=False)
class PassAtKCurve:
    """Mean pass@k over prompts for every k up to the number of samples n."""

    k: np.ndarray  # (n,) int, 1 .. n
    mean: np.ndarray  # (n,) float64
    low: np.ndarray  # (n,) float64, lower end of the interval
    high: np.ndarray  # (n,) float64, upper end of the interval
    confidence: float
    num_prompts: int


def pass_at_k(num_samples, num_correct, k) -> np.ndarray:
    """Return the unbiased estimate of pass@k = 1 - (1 - p)^k from c of n correct.

        1 - C(n - c, k) / C(n, k)            (Chen et al., arXiv 2107.03374, eq. 1)

    The ratio is computed as the product over j < k of (n - c - j) / (n - j). It cannot
    overflow and is exactly 0 where every k samples contain a correct one.

    Args:
      num_samples: n, int or int array.
      num_correct: c, int or int array, 0 <= c <= n.
      k: int or int array, 1 <= k <= n.

    Returns:
      float64 of the shape to which the three arguments broadcast.

    Raises:
      ValueError: for arguments outside these ranges or of other types. For k > n no
        unbiased estimate exists, as pass@k is a polynomial of degree k in p.

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
    """Return the mean pass@k over prompts with intervals, for every k up to n.

    The interval covers the variation from drawing other prompts from the same source
    and n new samples of each. Prompts are the independent units, and their spread
    includes the sampling noise, as each prompt's estimate in [0, 1] is unbiased. Normal
    and bootstrap intervals have zero width where all prompts agree (none solved, all
    solved, or a single prompt). This function therefore applies the construction of
    Agresti and Coull (1998) to means in [0, 1]: it adds z^2 / 2 prompts at 0 and as
    many at 1, and takes mean +- z sd / sqrt(N + z^2) for N prompts. With one sample per
    prompt this is exactly their binomial interval. It never has zero width, always
    contains the mean, and tends to the normal interval as N grows. The confidence holds
    for each k separately.

    Args:
      num_correct: (prompts,) int, the number of correct answers of each prompt among n.
      num_samples: n.
      confidence: the confidence of each interval, in (0, 1).

    Returns:
      The curve for k = 1 .. n.

    Raises:
      ValueError: if there is no prompt, for a confidence outside (0, 1), or outside the
        ranges of `pass_at_k`.

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
    """Return the mean difference of pass@k on the same prompts, with intervals.

    Pairing removes the variation that both have in common, such as how hard prompts
    are. The interval combines the intervals of the two means with their correlation
    over prompts (Newcombe, 1998, method 10 for paired proportions), so its width stays
    above zero where nothing varies.

    Args:
      num_correct: (prompts,) int, the number of correct answers of each prompt among n.
      baseline_correct: (prompts,) int, that of the same prompts in the same order.
      num_samples: n, the same for both.
      confidence: the confidence of each interval, in (0, 1).

    Returns:
      The curve of `num_correct` minus `baseline_correct`, with values in [-1, 1].

    Raises:
      ValueError: as `pass_at_k_curve`, and if the two differ in length.

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
    """Return (prompts, n) float64, the unbiased pass@k of each prompt and each k."""
    num_correct = np.asarray(num_correct)
    if num_correct.ndim != 1 or num_correct.size == 0:
        raise ValueError(
            f"num_correct: expected the counts of at least one prompt, shape "
            f"(prompts,), got shape {num_correct.shape}"
        )
    k = np.arange(1, num_samples + 1)
    return pass_at_k(num_samples, num_correct[:, None], k[None, :])


def _interval(estimates, z):
    """Return the ends, clipped to [0, 1], of the interval of the mean over axis 0."""
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
