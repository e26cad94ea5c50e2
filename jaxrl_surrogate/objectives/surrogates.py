"""Surrogates by name: functions h of the probability p of a correct answer.

A method with the surrogate h ascends E[h(p)] over prompts, and the slope h'(p) is the
factor of a prompt's gradient. `value` and `slope` are elementwise on [0, 1]. They take
NumPy arrays, computed in float64, or JAX arrays, also inside a trace. Infinite values
are returned as infinities. Every h increases except `regularized` with a large weight,
of which `certify` reports where it decreases. Additive constants, which do not affect
training, are those of the literature.
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
    """Return the surrogate of a registered name.

    Raises:
      ValueError: for an unknown name or parameter (the message names the nearest), for
        a missing parameter, or for a value out of range.

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
    """Return the surrogate of a text such as `pass_at_k:k=2`.

    Raises:
      ValueError: as `get`, and for a text that is not of the form NAME:KEY=VALUE.

    >>> dict(parse("pass_at_k:k=2").params)
    {'k': 2}
    """
    name, params = parse_name(text)
    return get(name, **params)


def names() -> tuple[str, ...]:
    """Return the registered names; surrogates of k attempts are last."""
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

    Up to the factor (M - 1) / M, this is the objective of mean-centred rewards whose
    negative weights are divided by delta > 0 (AsymGRPO of FADE, arXiv 2607.01490).
    delta = 1 gives the identity.
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

    At t = 0, h is -inf and the slope infinite. The slope's series is sum_j (1 - t)^j.
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

    h is finite everywhere, and its slope is infinite at both ends.
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

    h and its slope are infinite at both ends. The slope is
    1 / t + 1 / (1 - t) = sum_j (1 - t)^j + sum_j t^j.
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

    The family is that of arXiv 2604.25907. r = 0 is the identity up to a constant, and
    r = 1 is log. r = 1/2 is the limit of GRPO with sqrt(m / M) in place of the standard
    deviation. At 0 the slope is infinite for r > 0, and h for r >= 1. The series of the
    slope about 1 is sum_j (r)_j / j! (1 - t)^j.
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

    It is the large-group limit of RS-GRPO (arXiv 2509.24261) and, up to the factor tau,
    of SoftmaxGRPO (arXiv 2608.09271) at tau = 1 / beta. beta > 0 seeks risk and
    beta < 0 avoids it. The limit beta = 0 would be the identity. The slope is bounded;
    at t = 0 it is (c - 1) / beta.
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

    The slope is t^(alpha-1) (1-t)^(beta-1), with alpha and beta above 0. (1/2, 1/2) is
    arcsin, and (1, k) is pass@k / k for any real k (FADE's power, arXiv 2607.01490).
    The slope is infinite at 0 for alpha < 1 and at 1 for beta < 1; h is always finite.
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
        # A finite sum of powers of 1 - t only because alpha is an integer.
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

    The weights are those of F-GRPO (arXiv 2602.06717); the surrogate is derived here.
    gamma is above -1/2. gamma = 0 gives arcsin, and gamma = 1 gives arcsin sqrt(t) +
    sqrt(t (1 - t)), half of `arcsin` plus the standard deviation of the reward.
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
    """h = base + weight * a regulariser of the reward (arXiv 2510.23049).

    The regularisers are "variance" t (1 - t), "std" its root, and "entropy" of the
    binary reward. All increase up to t = 1/2, which gives hard prompts more weight.
    identity with variance and weight 1 is pass@2. arcsin / 2 with std and weight 1 is
    GRPO times 1 - p; `combine.regularize` takes any such surrogate. With a large weight
    h decreases somewhere: for identity and variance above weight 1, and near t = 1 for
    "std" and "entropy".
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
    """Return the (n,) coefficients of t^a q^b in powers of q = 1 - t, integers a, b."""
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
