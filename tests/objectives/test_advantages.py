"""The entrance exam of every registered advantage, and identities between them."""

import re

import jax
import numpy as np
import oracles
import pytest

from jaxrl_surrogate import objectives
from jaxrl_surrogate.objectives import advantages

pytestmark = pytest.mark.both_pythons

# name -> [(parameters, smallest group size served)]
VARIANTS = {
    "reinforce": [({}, 1)],
    "nsr": [({}, 1)],
    "w_reinforce": [({}, 1), ({"weight": 2.5}, 1)],
    "rloo": [({}, 2)],
    "dr_grpo": [({}, 2)],
    "asymmetric_grpo": [({}, 2), ({"delta": 0.4}, 2)],
    "grpo": [
        ({}, 2),
        ({"std": "sample"}, 2),
        ({"std": "sample", "epsilon": 1e-4}, 2),
        ({"epsilon": 0.3}, 2),
        ({"epsilon": 0.05, "epsilon_inside": True}, 2),
        ({"std": "sample", "epsilon": 0.05, "epsilon_inside": True}, 2),
    ],
    "variance_grpo": [({}, 2)],
    "rejection_sampling": [({}, 1)],
    "rejection_control": [({}, 1)],
    "rejection_loo": [({}, 2)],
    "best_of_n_sft": [({}, 2)],
    "maxrl": [({}, 2)],
    "truncated_maxrl": [({"order": 1}, 1), ({"order": 2}, 2), ({"order": 4}, 4)],
    "two_sided_rejection": [({}, 1)],
    "tsallis": [({}, 2), ({"r": 1.7}, 2)],
    "mmpo": [({}, 2), ({"order": 2}, 2)],
    "softmax_grpo": [({}, 2), ({"tau": 0.2}, 2)],
    "rs_grpo": [({}, 2), ({"beta": -1.5}, 2)],
    "one_sided_grpo": [({}, 2), ({"epsilon": 0.2}, 2)],
    "group_max": [({}, 1)],
    "leave_one_out_max": [({}, 1)],
    "pkpo": [({"k": 1}, 1), ({"k": 4}, 4)],
    "pkpo_loo": [({"k": 1}, 2), ({"k": 3}, 4)],
    "pass_at_k": [({"k": 1}, 1), ({"k": 2}, 2), ({"k": 4}, 4), ({"k": 8}, 8)],
    "rloo_pass_at_k": [({"k": 1}, 2), ({"k": 2}, 2), ({"k": 4}, 4), ({"k": 8}, 8)],
    "centred_pass_at_k": [({"k": 1}, 2), ({"k": 3}, 4)],
    "dr_grpo_pass_at_k": [({"k": 1}, 2), ({"k": 3}, 4)],
    "grpo_pass_at_k": [
        ({"k": 1}, 2),
        ({"k": 2}, 3),
        ({"k": 3, "epsilon": 1e-6}, 4),
        ({"k": 7}, 8),
    ],
    "full_sampling_pass_at_k": [({"k": 1}, 2), ({"k": 2}, 4), ({"k": 4}, 8)],
    "plugin_pass_at_k": [({"k": 3}, 2)],
    "plugin_loo_pass_at_k": [({"k": 3}, 2)],
    "combined_pass_at_k": [({"k": 2}, 3)],
    "focal_grpo": [({}, 2), ({"gamma": 0.5}, 2)],
    "easy_grpo": [({}, 2), ({"gamma": 0.5}, 2)],
    "regularized_grpo": [({}, 2), ({"weight": -2.0}, 2)],
    "fade": [({}, 2), ({"alpha": 0.6, "delta": 0.5}, 2)],
}
CASES = [
    pytest.param(name, params, smallest, id=f"{name}-{params}")
    for name, variants in VARIANTS.items()
    for params, smallest in variants
]
SIZED = [
    pytest.param(name, params, size, id=f"{name}-{params}-{size}")
    for name, variants in VARIANTS.items()
    for params, smallest in variants
    for size in (2, 4, 8)
    if size >= smallest
]


def test_every_name_is_examined():
    assert set(advantages.names()) == set(VARIANTS) == set(oracles.ESTIMATORS)
    assert set(oracles.SLOPES) == set(VARIANTS)


def enumerate_weights(fn, size):
    """The code's weights on every reward vector, in float64 through jit."""
    rewards = oracles.reward_vectors(size)
    with jax.enable_x64(True):
        weights = objectives.group_advantages(fn.table(size), rewards)
    assert weights.dtype == np.float64
    return np.asarray(weights)


@pytest.mark.parametrize(("name", "params", "size"), SIZED)
def test_weights_are_those_of_the_definition(name, params, size):
    weights = enumerate_weights(advantages.get(name, **params), size)
    expected = oracles.all_weights(name, size, **params)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "params", "size"), SIZED)
def test_expected_update_is_the_slope(name, params, size):
    weights = enumerate_weights(advantages.get(name, **params), size)
    table = advantages.table(name, size, **params)
    induced = objectives.induced_surrogate(table)
    for p in oracles.GRID:
        update = oracles.expected_update(weights, p)
        closed = oracles.slope(name, size, p, **params)
        assert abs(update - closed) < 1e-10
        assert abs(update - induced.slope(p)) < 1e-10


@pytest.mark.parametrize(("name", "params", "size"), SIZED)
def test_induced_surrogate_is_the_closed_form(name, params, size):
    fn = advantages.get(name, **params)
    induced = objectives.induced_surrogate(objectives.tabulate(fn, size))
    p = oracles.GRID
    slope = oracles.slope(name, size, p, **params)
    value = oracles.value(name, size, p, **params)
    np.testing.assert_allclose(induced.slope(p), slope, rtol=0, atol=1e-10)
    np.testing.assert_allclose(induced.value(p), value, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        (name, variants[0][0], size)
        for name, variants in VARIANTS.items()
        for size in range(variants[0][1], 11)
    ],
)
def test_every_size_to_ten(name, params, size):
    weights = enumerate_weights(advantages.get(name, **params), size)
    for p in (0.03, 0.41, 0.88):
        update = oracles.expected_update(weights, p)
        assert abs(update - oracles.slope(name, size, p, **params)) < 1e-10


@pytest.mark.parametrize(("name", "params", "smallest"), CASES)
def test_jit_vmap_loop_and_float32_agree(name, params, smallest, random):
    size = 8
    fn = advantages.get(name, **params)
    rewards = random.integers(0, 2, (16, size)).astype(np.float32)
    loop = np.stack([fn(row) for row in rewards])
    assert loop.dtype == np.float32
    jitted = jax.jit(fn)
    np.testing.assert_array_equal(np.stack([jitted(r) for r in rewards]), loop)
    np.testing.assert_array_equal(jax.vmap(fn)(rewards), loop)
    np.testing.assert_array_equal(objectives.group_advantages(fn, rewards), loop)
    table = fn.table(size)
    assert table.incorrect.dtype == table.correct.dtype == np.float64
    np.testing.assert_array_equal(objectives.group_advantages(table, rewards), loop)
    with jax.enable_x64(True):
        exact = np.asarray(objectives.group_advantages(table, rewards))
    np.testing.assert_allclose(loop, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "params", "size"), SIZED)
def test_permuting_rewards_permutes_weights(name, params, size, random):
    fn = advantages.get(name, **params)
    for _ in range(8):
        rewards = random.integers(0, 2, size).astype(np.float32)
        order = random.permutation(size)
        np.testing.assert_array_equal(fn(rewards[order]), fn(rewards)[order])


@pytest.mark.parametrize(("name", "params", "smallest"), CASES)
def test_masked_group_is_a_smaller_group(name, params, smallest, random):
    size = 8
    fn = advantages.get(name, **params)
    rewards = random.integers(0, 2, (200, size)).astype(np.float32)
    mask = random.random((200, size)) < random.random((200, 1))
    mask[0], mask[1] = False, True
    rewards[~mask] = random.choice([0, 1, np.nan, np.inf], (~mask).sum())
    family = objectives.table_family(fn.table, size)
    weights = np.asarray(objectives.group_advantages(family, rewards, mask))
    for row, kept, got in zip(rewards, mask, weights, strict=True):
        assert (got[~kept] == 0).all()
        if kept.sum() >= smallest and serves(fn, kept.sum()):
            table = fn.table(int(kept.sum()))
            expected = objectives.group_advantages(table, row[None, kept])[0]
            np.testing.assert_array_equal(got[kept], expected)
        else:
            assert (got == 0).all()


def serves(fn, size):
    """All sizes from the smallest on, but for disjoint blocks of k."""
    if fn.name == "full_sampling_pass_at_k":
        return size % dict(fn.params)["k"] == 0
    return True


@pytest.mark.parametrize(("name", "params", "smallest"), CASES)
def test_sizes_below_the_smallest_are_refused(name, params, smallest):
    fn = advantages.get(name, **params)
    assert fn.table(smallest).group_size == smallest
    assert np.abs(fn.table(smallest).gap).max() > 0
    for size in range(1, smallest):
        with pytest.raises(ValueError, match="group"):
            fn.table(size)
        with pytest.raises(ValueError, match="group"):
            fn(np.ones(size))
        with pytest.raises(ValueError, match="group"):
            objectives.table_family(fn.table, size)


@pytest.mark.parametrize(("name", "params", "size"), SIZED)
def test_unmixed_groups_get_exact_entries(name, params, size):
    fn = advantages.get(name, **params)
    table = fn.table(size)
    for rewards in (np.zeros(size), np.ones(size)):
        got = np.asarray(fn(rewards))
        entry = table.correct[-1] if rewards[0] else table.incorrect[0]
        assert (got == np.float32(entry)).all()
    centred = ("rloo", "dr_grpo", "grpo", "maxrl", "rloo_pass_at_k", "grpo_pass_at_k")
    if name in centred:
        assert table.correct[-1] == 0
        assert table.incorrect[0] == 0


@pytest.mark.parametrize("kind", [bool, np.int32, np.float16, np.float32])
def test_rewards_of_any_type(kind):
    rewards = np.array([1, 0, 0, 1]).astype(kind)
    weights = advantages.get("dr_grpo")(rewards)
    assert weights.dtype == np.float32
    assert weights.tolist() == [0.5, -0.5, -0.5, 0.5]


def test_no_retrace():
    traces = []
    fn = advantages.get("grpo")

    @jax.jit
    def weigh(rewards):
        traces.append(rewards.shape)
        return jax.vmap(fn)(rewards)

    for _ in range(3):
        weigh(np.ones((4, 8), np.float32))
    weigh(np.ones((4, 16), np.float32))
    assert traces == [(4, 8), (4, 16)]


def test_equal_names_are_equal_functions():
    assert advantages.get("grpo", epsilon=0.1) == advantages.get("grpo", epsilon=0.1)
    assert hash(advantages.get("rloo")) == hash(advantages.get("rloo"))
    assert advantages.get("grpo") != advantages.get("grpo", std="sample")


class TestIdentities:
    """Section 9 of the theory notes."""

    def tables_agree(self, one, other, factor=1.0):
        np.testing.assert_allclose(
            one.incorrect, factor * other.incorrect, rtol=0, atol=1e-14
        )
        np.testing.assert_allclose(
            one.correct, factor * other.correct, rtol=0, atol=1e-14
        )

    def test_grpo_of_two_and_three_is_constant(self):
        for size, constant in ((2, 1.0), (3, np.sqrt(2))):
            gap = advantages.table("grpo", size).gap
            np.testing.assert_allclose(gap, constant, rtol=1e-15)

    def test_grpo_of_four(self):
        p = oracles.GRID
        slope = objectives.induced_surrogate(advantages.table("grpo", 4)).slope(p)
        expected = np.sqrt(3) + (3 - 2 * np.sqrt(3)) * p * (1 - p)
        np.testing.assert_allclose(slope, expected, rtol=1e-14)

    def test_sample_deviation_only_scales(self):
        sample = advantages.table("grpo", 8, std="sample")
        self.tables_agree(sample, advantages.table("grpo", 8), np.sqrt(7 / 8))

    def test_dr_grpo_is_scaled_rloo(self):
        rloo, dr_grpo = (advantages.table(name, 8) for name in ("rloo", "dr_grpo"))
        self.tables_agree(dr_grpo, rloo, 7 / 8)

    def test_pass_at_one(self):
        one = {"k": 1}
        for name, plain in (
            ("pass_at_k", "reinforce"),
            ("rloo_pass_at_k", "rloo"),
            ("grpo_pass_at_k", "grpo"),
        ):
            self.tables_agree(
                advantages.table(name, 8, **one), advantages.table(plain, 8)
            )

    def test_pass_at_k_methods_share_their_objective(self):
        for k in range(1, 9):
            gaps = [
                advantages.table(name, 8, k=k).gap
                for name in ("pass_at_k", "rloo_pass_at_k")
            ]
            np.testing.assert_allclose(*gaps, rtol=0, atol=1e-14)

    def test_maxrl_climbs_one_order_less_than_rejection_sampling(self):
        p = oracles.GRID
        maxrl = objectives.induced_surrogate(advantages.table("maxrl", 8))
        shorter = advantages.table("rejection_sampling", 7)
        shorter = objectives.induced_surrogate(shorter)
        np.testing.assert_allclose(maxrl.slope(p), shorter.slope(p), rtol=1e-12)

    def test_grpo_reaches_arcsin_slowly(self):
        t = np.linspace(0, 1, 2001)
        arcsin = objectives.surrogates.get("arcsin").value(t)
        errors = []
        for size in (8, 64):
            table = advantages.table("grpo", size)
            induced = objectives.induced_surrogate(table).value(t)
            errors.append(np.abs(induced - arcsin).max())
        np.testing.assert_allclose(errors, [1.04, 0.37], atol=0.005)

    def test_grpo_pass_at_k_reaches_its_limit(self):
        limit = objectives.surrogates.get("arcsin_pass_at_k", k=8).slope(0.05)
        assert abs(limit - 1.478) < 5e-4
        for size, expected in ((16, 0.754), (64, 1.323), (256, 1.444)):
            table = advantages.table("grpo_pass_at_k", size, k=8)
            slope = objectives.induced_surrogate(table).slope(0.05)
            assert abs(slope - expected) < 5e-4


class TestErrors:
    def test_unknown_names_name_the_nearest(self):
        with pytest.raises(
            ValueError, match=r"'gpro': unknown advantage; did you mean grpo"
        ):
            advantages.get("gpro")

    def test_unknown_parameters_name_the_nearest(self):
        with pytest.raises(ValueError, match="did you mean epsilon"):
            advantages.get("grpo", epsilo=1e-4)
        with pytest.raises(ValueError, match="takes no parameters"):
            advantages.get("rloo", k=2)
        with pytest.raises(ValueError, match="group_size"):
            advantages.get("grpo", group_size=8)

    def test_missing_parameters(self):
        with pytest.raises(ValueError, match="needs the parameter 'k'"):
            advantages.get("pass_at_k")

    @pytest.mark.parametrize(
        ("name", "params", "field"),
        [
            ("grpo", {"std": "batch"}, "std='batch'"),
            ("grpo", {"epsilon": -1.0}, "epsilon=-1"),
            ("grpo_pass_at_k", {"k": 2, "epsilon": np.nan}, "epsilon=nan"),
            ("pass_at_k", {"k": 0}, "k=0"),
            ("pass_at_k", {"k": 2.5}, "k=2.5"),
            ("pass_at_k", {"k": 9}, "k=9.*groups of 9 or more"),
            ("rloo_pass_at_k", {"k": 9}, "k=9.*groups of 9 or more"),
            ("grpo_pass_at_k", {"k": 8}, "k=8.*groups of 9 or more"),
        ],
    )
    def test_values(self, name, params, field):
        with pytest.raises(ValueError, match=field):
            advantages.table(name, 8, **params)

    def test_group_size(self):
        for size in (0, -3, 2.0, True):
            with pytest.raises(ValueError, match="group_size="):
                advantages.table("reinforce", size)

    def test_a_number_is_no_group(self):
        with pytest.raises(ValueError, match="expected groups of shape"):
            advantages.get("rloo")(np.ones(()))


@pytest.mark.parametrize(
    ("size", "k", "wanted"), [(4, 4, 8), (4, 3, 6), (9, 4, 12), (1, 1, 2), (5, 16, 32)]
)
def test_groups_of_k_say_which_size_would_do(size, k, wanted):
    """The advice is followed: the size named is served, and no smaller one above."""
    with pytest.raises(ValueError, match=f"such as {wanted}$"):
        advantages.table("full_sampling_pass_at_k", size, k=k)
    assert advantages.table("full_sampling_pass_at_k", wanted, k=k).group_size == wanted
    for between in range(size + 1, wanted):
        with pytest.raises(ValueError, match="a multiple of k"):
            advantages.table("full_sampling_pass_at_k", between, k=k)


@pytest.mark.parametrize(
    "name",
    [name for name in advantages.names() if "k" in advantages.parameters(name)],
)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_a_group_that_is_too_small_for_k_is_told_one_that_is_not(name, k):
    """The first size that its refusal names is served."""

    def refusal(size):
        try:
            advantages.table(name, size, k=k)
        except ValueError as error:
            return str(error)
        return ""

    said = refusal(k - 1)
    if said:
        named = re.search(r"(?:take(?: groups of)?|such as) (\d+)", said)
        assert named and not refusal(int(named[1])), said
