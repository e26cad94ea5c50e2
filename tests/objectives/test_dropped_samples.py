"""Dropping samples for what they are: enumeration through the masks of a step."""

import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl_surrogate.losses import token_weights
from jaxrl_surrogate.objectives import (
    advantages,
    kept_update,
    mixed_only,
    table_family,
)

RULES = {
    "rloo": {},
    "reinforce": {},
    "nsr": {},
    "grpo": {},
    "maxrl": {},
    "rejection_sampling": {},
    "pkpo": {"k": 2},
    "rloo_pass_at_k": {"k": 2},
}
# Answers of a softmax policy: two right, two wrong, one cut at the limit.
RIGHT = np.array([True, True, False, False, False])
KEPT = np.array([True, True, True, True, False])


def _family(name, size):
    return table_family(advantages.get(name, **RULES[name]).table, size)


def _softmax(logits):
    chances = np.exp(logits) / np.exp(logits).sum()
    return chances, np.eye(len(chances)) - chances


def _batches(num_groups, size):
    """All batches of answers, (batches, groups, samples)."""
    answers = itertools.product(range(len(RIGHT)), repeat=num_groups * size)
    return np.array(list(answers)).reshape(-1, num_groups, size)


def _rates(chances):
    """f, r, and the gradients of r and of log f by the logits."""
    scores = np.eye(len(chances)) - chances
    kept, right = chances[KEPT].sum(), chances[RIGHT].sum()
    of_kept, of_right = (chances * KEPT) @ scores, (chances * RIGHT) @ scores
    r = right / kept
    return kept, r, of_right / kept - r * of_kept / kept, of_kept / kept


def _mean_update(family, policies, size):
    """By each policy's logits, through the family's mask and the loss's weights.

    Answers are of one token.
    """
    batches = _batches(len(policies), size)
    mask = KEPT[batches]
    with jax.enable_x64(True):
        weigh = jax.jit(family.__call__)
        advantage = np.asarray(weigh(RIGHT[batches].astype(float), mask))
        per_token = jax.vmap(
            lambda mask: token_weights("sequence_sum", mask[..., None], mask)
        )(mask)
    share = np.asarray(per_token, np.float64)[..., 0]
    chance = np.ones(len(batches))
    for g, (chances, _) in enumerate(policies):
        chance *= chances[batches[:, g]].prod(-1)
    total = []
    for g, (_, scores) in enumerate(policies):
        weights = chance[:, None] * advantage[:, g] * share[:, g]
        total.append(np.einsum("bm,bmv->v", weights, scores[batches[:, g]]))
    return total


@pytest.mark.parametrize("name", RULES)
def test_the_mean_update_of_what_is_kept(name, random):
    family = _family(name, 4)
    policy = _softmax(random.normal(size=len(RIGHT)))
    found = _mean_update(family, [policy], 4)[0]
    kept, r, of_r, of_log_kept = _rates(policy[0])
    on_right, on_kept = kept_update(family, kept, r)
    expected = on_right * of_r + on_kept * of_log_kept
    # Shares of a step are float32.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rules_that_give_wrong_samples_nothing_climb_the_whole_success_rate(random):
    policy = _softmax(random.normal(size=len(RIGHT)))
    chances, scores = policy
    of_p = (chances * RIGHT) @ scores
    for name in ("reinforce", "rejection_sampling"):
        found = _mean_update(_family(name, 4), [policy], 4)[0]
        factor = found[-1] / of_p[-1]
        np.testing.assert_allclose(found, factor * of_p, rtol=1e-5, atol=1e-6)
        assert factor > 0


def test_the_factors_in_the_documents():
    page = Path(__file__).parents[2] / "docs" / "theory.md"
    row = r"^  \| `(\w+)` \| ([-.0-9]+) \| ([-.0-9]+) \|$"
    rows = re.findall(row, page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 6
    for name, *shown in rows:
        found = kept_update(_family(name, 4), 0.6, 0.5)
        np.testing.assert_allclose(found, [*map(float, shown)], atol=5.1e-4)


def test_the_example(random):
    """Right 0.3, wrong 0.3, cut 0.4, groups of 4: who ascends P(correct | finished)?"""
    chances = np.array([0.1, 0.2, 0.05, 0.25, 0.4])
    policy = chances, np.eye(5) - chances
    kept, r, of_r, _ = _rates(chances)
    assert (kept, r) == (pytest.approx(0.6), pytest.approx(0.5))
    rloo = _mean_update(_family("rloo", 4), [policy], 4)[0]
    two = 1 - 0.4**4 - 4 * 0.6 * 0.4**3  # a comparison takes two
    np.testing.assert_allclose(rloo, two * of_r, atol=1e-6)
    reinforce = _mean_update(_family("reinforce", 4), [policy], 4)[0]
    of_p = (chances * RIGHT) @ policy[1]
    np.testing.assert_allclose(reinforce, (1 - 0.4**4) / 0.6 * of_p, atol=1e-6)
    assert abs(rloo[-1]) < 1e-6 and reinforce[-1] < -0.1  # the logit of being cut
    nsr = _mean_update(_family("nsr", 4), [policy], 4)[0]
    assert nsr[-1] > 0.1  # incorrect answers are pushed down, towards being cut


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_prompts_share_what_the_mean_divides_by(name, random):
    """Two prompts: with the other kept or not, the sum is over one more or itself."""
    family = _family(name, 2)
    policies = [_softmax(random.normal(size=len(RIGHT))) for _ in range(2)]
    found = _mean_update(family, policies, 2)
    for g in range(2):
        kept, r, of_r, of_log_kept = _rates(policies[g][0])
        other = 1 - (1 - _rates(policies[1 - g][0])[0]) ** 2
        on_right, on_kept = kept_update(family, kept, r)
        expected = (on_right * of_r + on_kept * of_log_kept) * (1 - other / 2)
        np.testing.assert_allclose(found[g], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["pkpo", "reinforce"])
def test_with_groups_replaced_as_well(name, random):
    """Mixed among what is kept: the same sum with the table of mixed groups."""
    family = mixed_only(_family(name, 3))
    policy = _softmax(random.normal(size=len(RIGHT)))
    found = _mean_update(family, [policy], 3)[0]
    kept, r, of_r, of_log_kept = _rates(policy[0])
    on_right, on_kept = kept_update(family, kept, r)
    np.testing.assert_allclose(
        found, on_right * of_r + on_kept * of_log_kept, rtol=1e-5, atol=1e-6
    )


def test_nothing_dropped_is_the_objective_itself(random):
    family, p = _family("grpo", 5), random.uniform()
    on_right, on_kept = kept_update(family, 1.0, p)
    total = 0.0
    for rewards in itertools.product((0, 1), repeat=5):
        chance = np.prod([p if x else 1 - p for x in rewards])
        m = sum(rewards)
        table = family.table()
        weights = [table.correct[m - 1] if x else table.incorrect[m] for x in rewards]
        scores = [1 / p if x else -1 / (1 - p) for x in rewards]
        total += chance * np.dot(weights, scores) / 5
    assert on_right == pytest.approx(total, rel=1e-9)
    assert on_kept == pytest.approx(0, abs=1e-12)
