"""Surrogates: transforms h of the probability p of a correct answer, by name.

A method with the surrogate h ascends E[h(p)] over prompts; its slope h' is the weight
of a prompt's gradient at p. `value` and `slope` take NumPy (computed in float64) or JAX
arrays (traceable), elementwise on [0, 1]; infinite ends are returned as infinities.
They increase, but for `regularized` with a large weight: `certify` says where not.
Constants that training does not see are chosen as in the literature.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import combine, surrogates_at_k
from jaxrl_surrogate.objectives.elementwise import check_number, elementwise, powers
from jaxrl_surrogate.objectives.names import (
    check_parameters,
    refuse_unnamed,
)
from jaxrl_surrogate.objectives.names import parse as parse_name
from jaxrl_surrogate.objectives.surrogate import Surrogate, from_callable

__all__ = [
    "Surrogate",
    "arcsin",
    "asymmetric",
    "beta",
    "entropic",
    "focal",
    "from_callable",
    "get",
    "identity",
    "log",
    "logit",
    "names",
    "parse",
    "power",
    "regularized",
]


def get(name: str, **params) -> Surrogate:
    """The surrogate of a registered name.

    Raises:
      ValueError: for an unknown name or parameter (the nearest is named), a missing
        parameter, or a value out of range.

    >>> float(get("pass_at_k", k=2).value(0.5))
    0.75
    """
    first = name.partition(":")[0]
    if ":" in name and "=" not in name and first in _SURROGATES:
        takes = inspect.signature(_SURROGATES[first]).parameters
        refuse_unnamed(name, first, tuple(takes))
    if name not in _SURROGATES:
        raise unknown("name", name, names(), "surrogate")
    make = _SURROGATES[name]
    check_parameters(make, name, params)
    return make(**params)


def parse(text: str) -> Surrogate:
    """The surrogate of a name with its parameters in one word.

    Raises:
      ValueError: as `get`, and for another spelling than NAME:KEY=VALUE.

    >>> dict(parse("pass_at_k:k=2").params)
    {'k': 2}
    """
    name, params = parse_name(text)
    return get(name, **params)


def names() -> tuple[str, ...]:
    """The registered names, in the order of THEORY: pass@1, log family, pass@k."""
    return tuple(_SURROGATES)


def identity() -> Surrogate:
    """h(t) = t: the mean reward itself (REINFORCE, RLOO)."""
    return Surrogate(
        value=elementwise(lambda xp, t: t),
        slope=elementwise(lambda xp, t: xp.ones_like(t)),
        name="identity",
        bernstein=np.ones(1),
        series=lambda n: (powers(n, {0: 1.0}), np.zeros(n)),
        powers=((1.0, 0.0, 0.0),),
    )


def asymmetric(delta: float) -> Surrogate:
    """h(t) = t - (1 - 1 / delta) t^2 / 2, h'(t) = (1 - t) + t / delta.

    Mean-centred rewards whose negative weights are divided by delta > 0 (AsymGRPO of
    FADE, arXiv 2607.01490), up to (M - 1) / M. delta = 1 is the identity.
    """
    check_number("delta", delta, above=0)
    bend = 1 - 1 / delta
    return Surrogate(
        value=elementwise(lambda xp, t: t - bend * t * t / 2),
        slope=elementwise(lambda xp, t: 1 - bend * t),
        name="asymmetric",
        params={"delta": delta},
        bernstein=np.array([1.0, 1 / delta]),
        series=lambda n: (powers(n, {0: 1 / delta, 1: bend}), np.zeros(n)),
        powers=((1.0, 0.0, 1.0), (1 / delta, 1.0, 0.0)),
    )


def log() -> Surrogate:
    """h(t) = log t, h'(t) = 1 / t: maximum likelihood (rejection sampling, MaxRL).

    -inf at t = 0, where the slope is infinite. 1 / t = sum_j (1 - t)^j.
    """
    return Surrogate(
        value=elementwise(lambda xp, t: xp.log(t)),
        slope=elementwise(lambda xp, t: 1 / t),
        name="log",
        series=lambda n: (np.ones(n), np.zeros(n)),
        powers=((1.0, -1.0, 0.0),),
    )


def arcsin() -> Surrogate:
    """h(t) = 2 arcsin sqrt(t), h'(t) = 1 / sqrt(t (1 - t)): the limit of GRPO.

    Finite everywhere; the slope is infinite at both ends.
    """
    return Surrogate(
        # As an angle: arcsin alone loses half the digits near t = 1.
        value=elementwise(lambda xp, t: 2 * xp.arctan2(xp.sqrt(t), xp.sqrt(1 - t))),
        slope=elementwise(lambda xp, t: 1 / xp.sqrt(t * (1 - t))),
        name="arcsin",
        powers=((1.0, -0.5, -0.5),),
    )


def logit() -> Surrogate:
    """h(t) = log(t / (1 - t)), h'(t) = 1 / (t (1 - t)): log-odds.

    Infinite at both ends. h' = 1 / t + 1 / (1 - t) = sum_j (1 - t)^j + sum_j t^j.
    """
    return Surrogate(
        value=elementwise(lambda xp, t: xp.log(t) - xp.log1p(-t)),
        slope=elementwise(lambda xp, t: 1 / t + 1 / (1 - t)),
        name="logit",
        series=lambda n: (np.ones(n), np.ones(n)),
        powers=((1.0, -1.0, 0.0), (1.0, 0.0, -1.0)),
    )


def power(r: float) -> Surrogate:
    """h(t) = (t^(1-r) - 1) / (1 - r), h'(t) = t^-r: the Tsallis family.

    (arXiv 2604.25907.) r = 0 is the identity up to a constant, 1 is log, 1/2 the limit
    of GRPO with sqrt(m / M) in place of the deviation; between, p weighs by p^-r. The
    slope is infinite at 0 for r > 0, and h for r >= 1. Its series about 1 is
    sum_j (r)_j / j! (1 - t)^j.
    """
    check_number("r", r)

    def value(xp, t):
        return xp.log(t) if r == 1 else xp.expm1((1 - r) * xp.log(t)) / (1 - r)

    def series(n):
        factors = (r + np.arange(n - 1)) / np.arange(1, n)
        return np.concatenate([[1.0], np.cumprod(factors)]), np.zeros(n)

    whole = r <= 0 and float(r).is_integer()
    return Surrogate(
        value=elementwise(value),
        slope=elementwise(lambda xp, t: t ** (-r)),
        name="power",
        params={"r": r},
        # t^n is the last element of the basis of degree n.
        bernstein=powers(int(1 - r), {int(-r): 1.0}) if whole else None,
        series=series,
        powers=((1.0, -float(r), 0.0),),
    )


def entropic(beta: float) -> Surrogate:
    """h(t) = log(1 + t (e^beta - 1)) / beta = log E[e^(beta R)] / beta.

        h'(t) = (c - 1) / (beta (1 + t (c - 1))),  c = e^beta

    The limit of RS-GRPO (arXiv 2509.24261), and of SoftmaxGRPO (arXiv 2608.09271) at
    tau = 1 / beta, up to tau. beta > 0 seeks risk, beta < 0 avoids it, 0 would be the
    identity. The slope is bounded, by (c - 1) / beta at t = 0.
    """
    check_number("beta", beta)
    if beta == 0 or abs(beta) > 600:
        raise FieldError(
            "beta",
            beta,
            "between -600 and 600 and not 0 (the limit at 0 is 'identity', at "
            "infinity 'log')",
        )
    rise = math.expm1(beta)
    # The series about the end where the slope is least converges on all of [0, 1].
    ratio = -math.expm1(-abs(beta))

    def series(n):
        least = rise / beta * (math.exp(-beta) if beta > 0 else 1.0)
        terms = least * ratio ** np.arange(n)
        return (terms, np.zeros(n)) if beta > 0 else (np.zeros(n), terms)

    return Surrogate(
        value=elementwise(lambda xp, t: xp.log1p(t * rise) / beta),
        slope=elementwise(lambda xp, t: rise / beta / (1 + t * rise)),
        name="entropic",
        params={"beta": beta},
        series=series,
    )


def beta(alpha: float, beta: float) -> Surrogate:
    """h(t) = int_0^t x^(alpha-1) (1-x)^(beta-1) dx: the incomplete beta function.

    Slopes t^(alpha-1) (1-t)^(beta-1), alpha and beta above 0: (1/2, 1/2) is arcsin,
    (1, k) is pass@k / k for any real k (FADE's power, arXiv 2607.01490). The slope is
    infinite at 0 for alpha < 1, at 1 for beta < 1; h never is.
    """
    check_number("alpha", alpha, above=0)
    check_number("beta", beta, above=0)
    whole = all(float(x).is_integer() for x in (alpha, beta)) and alpha + beta < 1000
    coefficients = None
    if whole:
        degree = int(alpha + beta) - 2
        only = {int(alpha) - 1: 1 / math.comb(degree, int(alpha) - 1)}
        coefficients = powers(degree + 1, only)

    def series(n):
        # (1-x)^(beta-1) about the other end is finite only where alpha is whole.
        return _shifted_power(int(alpha) - 1, beta - 1, n), np.zeros(n)

    return Surrogate(
        value=_incomplete_beta(float(alpha), float(beta)),
        slope=elementwise(lambda xp, t: t ** (alpha - 1) * (1 - t) ** (beta - 1)),
        name="beta",
        params={"alpha": alpha, "beta": beta},
        bernstein=coefficients,
        series=series if whole else None,
        powers=((1.0, alpha - 1.0, beta - 1.0),),
    )


def focal(gamma: float) -> Surrogate:
    """h'(t) = (1 - t)^gamma / sqrt(t (1 - t)): GRPO weighed by (1 - p)^gamma.

    (F-GRPO, arXiv 2602.06717; the surrogate derived.) gamma > -1/2; 0 is arcsin, 1 is
    arcsin sqrt(t) + sqrt(t (1 - t)), half the arcsine with the deviation of the reward
    as regulariser.
    """
    check_number("gamma", gamma, above=-0.5)
    inner = beta(0.5, gamma + 0.5)
    return Surrogate(
        value=inner.value,
        slope=inner.slope,
        name="focal",
        params={"gamma": gamma},
        powers=inner.powers,
    )


def regularized(
    base: str = "identity",
    regularizer: str = "variance",
    weight: float = 0.5,
    base_params: dict | None = None,
) -> Surrogate:
    """h = base + weight * regulariser of the reward (arXiv 2510.23049).

    Hard prompts weigh more where the regulariser rises towards p = 1/2. Regularisers:
    "variance" t (1 - t), "std" its root, "entropy" of the binary reward. identity with
    variance 1 is pass@2; arcsin / 2 with std 1 is GRPO times 1 - p; see
    `combine.regularize` for any surrogate. h decreases somewhere where the weight is
    large: for identity and variance above 1, and near 1 for "std" and "entropy".
    """
    if not isinstance(base_params or {}, dict):
        raise FieldError("base_params", base_params, "a dict of parameters")
    inner = get(base, **(base_params or {}))
    whole = combine.regularize(inner, regularizer, weight)
    params = {"base": base, "regularizer": regularizer, "weight": weight}
    if base_params:
        params["base_params"] = base_params
    return Surrogate(
        value=whole.value,
        slope=whole.slope,
        name="regularized",
        params=params,
        bernstein=whole.bernstein,
        series=whole.series,
        powers=whole.powers,
        leading=whole.leading,
    )


_SURROGATES = {
    make.__name__: make
    for make in (
        identity,
        asymmetric,
        log,
        arcsin,
        logit,
        power,
        entropic,
        beta,
        focal,
        regularized,
        surrogates_at_k.pass_at_k,
        surrogates_at_k.arcsin_pass_at_k,
        surrogates_at_k.log_pass_at_k,
        surrogates_at_k.pass_hat_k,
        surrogates_at_k.truncated_log,
        surrogates_at_k.sum_pass_at_k,
    )
}


def _shifted_power(a, b, n):
    """(n,) coefficients in powers of q = 1 - t of t^a q^b, a and b whole."""
    out = np.zeros(n)
    for j in range(a + 1):
        if j + int(b) < n:
            out[j + int(b)] = math.comb(a, j) * (-1.0) ** j
    return out


def _incomplete_beta(alpha, beta):
    whole = math.exp(math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta))

    def value(t):
        if isinstance(t, jax.Array):
            t = t.astype(jnp.result_type(t, jnp.float32))
            return whole * jax.scipy.special.betainc(alpha, beta, t)
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            t = jnp.asarray(np.asarray(t, np.float64))
            shares = jax.scipy.special.betainc(alpha, beta, t)
            return whole * np.asarray(shares)[()]

    return value
