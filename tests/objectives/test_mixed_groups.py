"""The objective of mixed groups, by enumeration and through the batches of a run."""

import itertools
import json

import numpy as np
import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.objectives import (
    WeightTable,
    advantages,
    graded,
    induced_surrogate,
    mixed_groups,
    mixed_only,
    table_family,
)

# Rules whose all-correct or all-incorrect groups carry weight.
CARRYING = {
    "reinforce": {},
    "nsr": {},
    "w_reinforce": {},
    "rejection_sampling": {},
    "rejection_control": {},
    "best_of_n_sft": {},
    "truncated_maxrl": {"order": 3},
    "two_sided_rejection": {},
    "group_max": {},
    "pkpo": {"k": 2},
    "pkpo_loo": {"k": 2},
}


def _softmax(random, num_right, num_wrong):
    """Probabilities of answers, and (answers, logits) scores of each."""
    logits = random.normal(size=num_right + num_wrong)
    chances = np.exp(logits) / np.exp(logits).sum()
    scores = np.eye(len(chances)) - chances
    right = np.arange(len(chances)) < num_right
    return chances, scores, right


def _update(table, chances, scores, rewards, chosen):
    """Mean update of one prompt over all groups for which `chosen(rewards)`."""
    size, total = table.group_size, np.zeros(len(chances))
    for answers in itertools.product(range(len(chances)), repeat=size):
        group = rewards[list(answers)]
        if not chosen(group):
            continue
        m = int(group.sum())
        weights = [table.correct[m - 1] if r else table.incorrect[m] for r in group]
        chance = np.prod(chances[list(answers)])
        total += chance * np.array(weights) @ scores[list(answers)] / size
    return total


@pytest.mark.parametrize("name", [*CARRYING, "rloo", "grpo", "maxrl", "pass_at_k"])
def test_the_update_of_mixed_groups_is_the_gradient_of_their_objective(name, random):
    """As vectors, with several correct and incorrect answers; with nominal weights."""
    params = CARRYING.get(name, {"k": 2} if name == "pass_at_k" else {})
    table = advantages.table(name, 4, **params)
    chances, scores, right = _softmax(random, 2, 2)
    p = chances[right].sum()
    slope = (chances * right) @ scores  # of p, by the logits
    found = _update(
        table, chances, scores, right.astype(float), lambda group: 0 < group.sum() < 4
    )
    mixed = induced_surrogate(mixed_only(table)).slope(p)
    np.testing.assert_allclose(found, mixed * slope, rtol=1e-10, atol=1e-12)
    closed = induced_surrogate(table).slope(p)
    closed += table.incorrect[0] * (1 - p) ** 3 - table.correct[-1] * p**3
    assert mixed == pytest.approx(closed, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("size", [4, 8])
def test_which_rules_change(size):
    changed = set()
    for name in advantages.names():
        params = {
            field: {"order": 3}.get(field, 2)
            for field in ("k", "order")
            if field in advantages.parameters(name)
        }
        if mixed_groups.change(advantages.table(name, size, **params)):
            changed.add(name)
    assert changed == {*CARRYING}


def test_the_figure_of_pkpo():
    """k = 2, M = 8, p = 0.9: 2 q = 0.2 becomes 0.2 - 2 p^7."""
    found = mixed_groups.change(advantages.table("pkpo", 8, k=2))
    assert (found.p, found.lowest_at, found.falls) == (0.9, 1.0, True)
    assert found.lowest == pytest.approx(-2)
    assert found.before == pytest.approx(0.2)
    assert found.after == pytest.approx(0.2 - 2 * 0.9**7)
    assert round(found.after, 3) == -0.757
    assert not mixed_groups.change(advantages.table("reinforce", 8)).falls


def test_every_size_of_a_family(random):
    size = 5
    entries = random.normal(size=(2, size, size + 1))
    make = lambda n: WeightTable(entries[0, n - 1, :n], entries[1, n - 1, :n])  # noqa: E731
    found = mixed_only(table_family(make, size))
    for n in range(1, size + 1):
        expected = mixed_only(make(n))
        np.testing.assert_array_equal(found.table(n).incorrect, expected.incorrect)
        np.testing.assert_array_equal(found.table(n).correct, expected.correct)
        rewards = np.zeros((2, size))
        rewards[1] = 1
        mask = np.broadcast_to(np.arange(size) < n, rewards.shape)
        assert not np.any(found(rewards, mask))


@pytest.mark.parametrize("name", ["pkpo", "reinforce", "rloo"])
def test_graded_groups_of_equal_rewards_weigh_nothing(name):
    """So leaving them out leaves the layer-cake objective of the mixed table."""
    table = mixed_only(advantages.table(name, 4, **CARRYING.get(name, {})))
    for level in (0.0, 0.3, 1.0, 2.0):
        assert not np.any(graded.layer_cake(table, np.full((1, 4), level)))


def test_the_command_says_it(capsys):
    words = ["pkpo:k=2", "--dynamic-sampling", "--json"]
    assert cli.main(["objective", *words]) == 0
    found = json.loads(capsys.readouterr().out)["8"]
    slope = dict(zip(found["p"], found["slope"], strict=True))
    assert slope[0.9] == pytest.approx(0.2 - 2 * 0.9**7)
    assert found["decreasing"]
