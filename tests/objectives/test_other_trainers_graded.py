"""Other trainers' rules on graded rewards, against their formulas sample by sample.

The oracle computes one sample's advantage at a time, with exact means from `Fraction`
and counts of subsets by enumeration, from the formula that each release documents or
has in its code; it shares no function with the rules.
"""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.objectives import other_trainers

CASES = {
    "thirds": [0.0, 1 / 3, 2 / 3, 1.0],
    "halves": [0.5, 0.5, 1.0, 0.0, 0.0],
    "one of each": [0.0, 0.5, 1.0],
    "mean of zero": [1.0, -1.0, 0.5, -0.5],
    "pair with a mean of zero": [1.0, -1.0],
    "negative mean": [-1.0, -1.0, 0.5, 1.0],
    "above one": [2.0, 0.0, 1.0, 0.0, 3.0],
    "all equal and graded": [0.1, 0.1, 0.1],
    "all but one equal and graded": [0.1, 0.1, 0.1, 0.9],
    "rounded to one": [0.7, 0.2, 0.4, 1.0, 0.0, 0.6],
    "no whole one": [0.3, 0.9, 0.6],
    "all halves": [0.5, 0.5],
    "ties at the top": [0.8, 0.8, 0.1, 0.0],
}


def _mean(values):
    return sum(map(Fraction, values), Fraction(0)) / len(values)


def _std(values, ddof):
    if len(values) <= ddof:
        return 0.0
    mean = _mean(values)
    return math.sqrt(
        sum((Fraction(v) - mean) ** 2 for v in values) / (len(values) - ddof)
    )


def _others(values, i):
    return [*values[:i], *values[i + 1 :]]


def _centred(r, i):
    return float(Fraction(r[i]) - _mean(r))


def _rloo(r, i):
    return float(Fraction(r[i]) - _mean(_others(r, i)))


def _grpo(epsilon, ddof=1):
    return lambda r, i: _centred(r, i) / (_std(r, ddof) + epsilon)


def _nemo(r, i):
    others = _others(r, i)
    std = _std(others, 1)
    return _rloo(r, i) / (std + 1e-6 if std > 0 else 1)


def _prime(r, i):
    return float((Fraction(r[i]) - _mean(r)) / _mean(r)) if _mean(r) > 0 else 0.0


def _over_mean(r, i):
    return float((Fraction(r[i]) - _mean(r)) / (_mean(r) + Fraction(1e-6)))


def _passk_of_verl(r, i):
    lead = r[i] - max(_others(r, i))
    return lead / (_std(r, 1) + 1e-6) if lead > 0 else 0.0


def _passk_training(k):
    def advantage(r, i):
        if r[i] not in (0, 1):
            return r[i]  # the release replaces exact ones and zeros only
        groups = list(itertools.combinations(range(len(r)), k))
        mine = [group for group in groups if i in group]

        def missed(groups):
            return sum(all(r[j] != 1 for j in g) for g in groups) / len(groups)

        miss = missed(groups)
        scale = math.sqrt(miss * (1 - miss)) + 1e-6
        return (miss if r[i] == 1 else miss - missed(mine)) / scale

    return advantage


def _pkpo_of_maxrl(k):
    def shaped(rounded, i):
        wrong = len(rounded) - sum(rounded)
        ways = len(list(itertools.combinations(range(wrong), k - 1)))
        return rounded[i] * Fraction(ways, math.comb(len(rounded) - 1, k - 1))

    def advantage(r, i):
        rounded = [round(x) for x in r]  # halves to the even integer, as torch does
        mine = shaped(rounded, i)
        rest = [shaped(rounded, j) for j in range(len(r)) if j != i]
        return float(mine - sum(rest) / len(rest))

    return advantage


ORACLES = {
    "verl:grpo": _grpo(1e-6),
    "verl:dr_grpo": _centred,
    "verl:grpo_passk": _passk_of_verl,
    "verl:rloo": _rloo,
    "verl:rloo_vectorized": _rloo,
    "trl:grpo": _grpo(1e-4),
    "trl:rloo": _rloo,
    "openrlhf:rloo": _rloo,
    "openrlhf:dr_grpo": _centred,
    "openrlhf:group_norm": _grpo(1e-9),
    "oat:grpo": _grpo(1e-8),
    "oat:drgrpo": _centred,
    "areal:grpo": _grpo(1e-5),
    "slime:grpo": _grpo(1e-6),
    "nemo:grpo": _nemo,
    "open_instruct:centered": _centred,
    "open_instruct:standard": _grpo(1e-8, ddof=0),
    "prime_rl:grpo": _centred,
    "prime_rl:max_rl": _prime,
    "tinker:grpo": _centred,
    "forge:grpo": _grpo(1e-4),
    "skyrl:grpo": _grpo(1e-6),
    "skyrl:rloo": _rloo,
    "skyrl:maxrl": _over_mean,
    "maxrl:maxrl": _over_mean,
}
WITH_K = {
    "maxrl:pkpo": _pkpo_of_maxrl,
    "passk_training:analytic": _passk_training,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", other_trainers.names())
def test_graded_rewards_are_weighed_as_the_trainer_does(name, case, random):
    values = CASES[case]
    orders = [values, [float(x) for x in random.permutation(values)]]
    options = [{}]
    if name in WITH_K:
        options = [{"k": k} for k in range(1, len(values) + 1)]
    for rewards, params in itertools.product(orders, options):
        oracle = WITH_K[name](**params) if params else ORACLES[name]
        expected = [oracle(rewards, i) for i in range(len(rewards))]
        found = other_trainers.rule(name, **params)(np.array(rewards))
        np.testing.assert_allclose(
            found, expected, rtol=1e-9, atol=1e-12, err_msg=f"{rewards} {params}"
        )


def test_every_rule_has_an_oracle():
    assert {*ORACLES, *WITH_K} == {*other_trainers.names()}


def test_groups_of_one_graded():
    kept = {"verl:dr_grpo", "verl:rloo", "skyrl:maxrl", "maxrl:pkpo"}
    kept |= {"passk_training:analytic"}
    scaled = {"verl:grpo", "skyrl:grpo"}
    refused = {"verl:grpo_passk", "maxrl:maxrl"}
    for name in other_trainers.names():
        params = {"k": 1} if name in WITH_K else {}
        one = np.array([0.3 if name != "maxrl:pkpo" else 3.0])
        rule = other_trainers.rule(name, **params)
        if name in refused:
            with pytest.raises(ValueError, match="group_size=1"):
                rule(one)
        elif name in scaled:
            np.testing.assert_allclose(rule(one), one / (1 + 1e-6))
        else:
            np.testing.assert_array_equal(rule(one), one if name in kept else 0 * one)


def test_levels_are_judged_by_what_the_rule_does(capsys):
    """Chen's release gives a graded reward as its own weight: that has no objective."""
    levels, size = [0.0, 0.5, 1.0], 4
    weigh, worst, largest = _passk_training(2), 0.0, 0.0
    for others in itertools.combinations_with_replacement(levels, size - 2):
        around = 0.0
        for x, y in ((0.0, 0.5), (0.5, 1.0), (1.0, 0.0)):
            group = [x, y, *others]
            around += weigh(group, 0) - weigh(group, 1)
            largest = max(largest, *(abs(weigh(group, i)) for i in range(size)))
        worst = max(worst, abs(around))
    assert worst / largest > 0.1
    words = [
        "passk_training:analytic:k=2",
        "--group-size",
        "4",
        "--levels",
        "0",
        "0.5",
        "1",
    ]
    assert cli.main(["objective", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["4"]["graded"]
    assert not found["has_objective"]
    assert found["share"] == pytest.approx(worst / largest, rel=1e-9)
