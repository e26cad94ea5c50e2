"""Weight tables and families: lookups, algebra, masks, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import (
    TableFamily,
    WeightTable,
    advantages,
    from_surrogate,
    group_advantages,
    surrogates,
    table_family,
    tabulate,
)

pytestmark = pytest.mark.both_pythons


@pytest.fixture
def random_table(random):
    def make(size):
        return WeightTable(random.normal(size=size), random.normal(size=size))

    return make


def by_definition(table, rewards):
    """Z_i from the sum over the others, one sample at a time."""
    rewards = np.asarray(rewards)
    weights = np.zeros(rewards.shape)
    for i, reward in enumerate(rewards):
        others = int(np.delete(rewards, i).sum())
        weights[i] = (table.correct if reward else table.incorrect)[others]
    return weights


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_lookup_is_the_definition(size, random_table, random):
    table = random_table(size)
    rewards = random.integers(0, 2, (3, 7, size))
    rewards[0, 0], rewards[0, 1] = 0, 1
    got = np.asarray(table(rewards))
    assert got.shape == rewards.shape
    expected = np.apply_along_axis(lambda row: by_definition(table, row), -1, rewards)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_entries_are_settled():
    table = WeightTable([0, 0], (1, 2))
    assert table.incorrect.dtype == table.correct.dtype == np.float64
    kept = WeightTable(np.zeros(2, np.float32), np.ones(2, np.float32))
    assert kept.correct.dtype == np.float32


@pytest.mark.parametrize("size", [1, 3, 15, 17])
def test_groups_of_another_size_are_refused(size):
    rewards = np.ones((4, size))
    table = advantages.table("rloo", 16)
    family = table_family(advantages.get("rloo").table, 16)
    for method in (table, family, jax.jit(table.__call__)):
        with pytest.raises(ValueError, match=r"groups of 16"):
            method(rewards)
    for method in (table, family):
        with pytest.raises(ValueError, match=r"groups of 16"):
            group_advantages(method, rewards)


def test_shapes_of_entries_are_checked():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        WeightTable([0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match="stacked"):
        WeightTable(np.zeros((3, 2)), np.ones((3, 2)))(np.ones(2))
    with pytest.raises(ValueError, match="stacked"):
        TableFamily(np.zeros(2), np.ones(2))(np.ones(2))


class TestAlgebra:
    def test_tables_are_vectors(self, random_table, random):
        one, other = random_table(8), random_table(8)
        rewards = random.integers(0, 2, (5, 8))
        mixture = 0.25 * one + other * 3 - one
        expected = -0.75 * one(rewards) + 3 * other(rewards)
        np.testing.assert_allclose(mixture(rewards), expected, rtol=1e-5, atol=1e-6)
        assert mixture.correct.dtype == np.float64

    @pytest.mark.parametrize("factor", [2, 2.0, np.float64(2), np.float32(2)])
    def test_scalars_of_any_kind(self, factor, random_table):
        table = random_table(4)
        for scaled in (factor * table, table * factor):
            assert isinstance(scaled, WeightTable)
            np.testing.assert_array_equal(scaled.correct, 2 * table.correct)

    def test_traced_scalars(self, random_table):
        table = random_table(4)
        scaled = jax.jit(lambda share: share * table + (1 - share) * table)(0.25)
        np.testing.assert_allclose(scaled.correct, table.correct, rtol=1e-6)

    def test_families_are_vectors(self):
        rloo, maxrl = (
            table_family(advantages.get(name).table, 4) for name in ("rloo", "maxrl")
        )
        mixture = 0.5 * rloo + 0.5 * maxrl
        for size in (2, 3, 4):
            expected = 0.5 * (
                advantages.table("rloo", size).gap + advantages.table("maxrl", size).gap
            )
            np.testing.assert_allclose(mixture.table(size).gap, expected, atol=1e-15)

    def test_refused(self, random_table):
        with pytest.raises(ValueError, match="4 and 5"):
            random_table(4) + random_table(5)
        with pytest.raises(TypeError):
            random_table(4) + 1
        with pytest.raises(TypeError):
            random_table(4) * random_table(4)
        with pytest.raises(TypeError):
            random_table(4) * np.ones(4)


class TestFamily:
    def test_rows_are_the_tables(self):
        family = table_family(advantages.get("rloo_pass_at_k", k=3).table, 6)
        assert family.incorrect.shape == family.correct.shape == (6, 6)
        for size in range(1, 7):
            member = family.table(size)
            if size < 3:
                assert not member.correct.any()
                assert not member.incorrect.any()
            else:
                full = advantages.table("rloo_pass_at_k", size, k=3)
                np.testing.assert_array_equal(member.correct, full.correct)
                np.testing.assert_array_equal(member.incorrect, full.incorrect)
        with pytest.raises(ValueError, match="group_size=7"):
            family.table(7)

    def test_without_mask_is_the_full_table(self, random):
        fn = advantages.get("grpo")
        rewards = random.integers(0, 2, (40, 8))
        family = table_family(fn.table, 8)
        expected = np.asarray(fn.table(8)(rewards))
        np.testing.assert_array_equal(family(rewards), expected)
        whole = np.ones(rewards.shape, bool)
        np.testing.assert_array_equal(family(rewards, whole), expected)
        np.testing.assert_array_equal(
            group_advantages(family, rewards, whole), expected
        )

    def test_every_mask_of_every_group(self, random_table):
        tables = {size: random_table(size) for size in range(1, 6)}
        family = table_family(tables.__getitem__, 5)
        bits = np.arange(32)[:, None] >> np.arange(5) & 1
        rewards, mask = (
            x.reshape(-1, 5)
            for x in np.broadcast_arrays(bits[:, None], bits[None].astype(bool))
        )
        got = np.asarray(family(rewards, mask))
        for row, kept, weights in zip(rewards, mask.astype(bool), got, strict=True):
            assert (weights[~kept] == 0).all()
            if kept.any():
                expected = by_definition(tables[kept.sum()], row[kept])
                np.testing.assert_array_equal(weights[kept], np.float32(expected))

    def test_dropped_samples_may_hold_anything(self):
        family = table_family(advantages.get("rejection_sampling").table, 4)
        rewards = jnp.array([[1, 0, jnp.nan, jnp.inf]])
        weights = family(rewards, jnp.array([[True, True, False, False]]))
        assert weights.tolist() == [[2, 0, 0, 0]]

    def test_a_schedule_keeps_one_trace(self):
        traces = []

        @jax.jit
        def step(family, rewards, mask):
            traces.append(family.group_size)
            return family(rewards, mask)

        rewards, mask = np.ones((2, 8), np.float32), np.ones((2, 8), bool)
        log = surrogates.get("log")
        schedule = [
            table_family(advantages.get("pass_at_k", k=k).table, 8) for k in (8, 4, 1)
        ]
        schedule += [table_family(lambda n: from_surrogate(log, n), 8)]
        schedule += [0.3 * schedule[0] + 0.7 * schedule[-1]]
        schedule += [jax.tree.map(jnp.asarray, schedule[0])]
        for family in schedule:
            step(family, rewards, mask)
        assert traces == [8]
        step(table_family(advantages.get("grpo").table, 4), rewards[:, :4], mask[:, :4])
        assert traces == [8, 4]

    def test_refused(self):
        with pytest.raises(ValueError, match="k=9"):
            table_family(advantages.get("pass_at_k", k=9).table, 8)
        with pytest.raises(ValueError, match=r"make_table\(4\)"):
            table_family(lambda n: advantages.table("reinforce", 3), 4)
        with pytest.raises(ValueError, match="group_size=0"):
            table_family(advantages.get("rloo").table, 0)
        family = table_family(advantages.get("rloo").table, 4)
        with pytest.raises(ValueError, match="mask"):
            family(np.ones((3, 4)), np.ones(4, bool))


class TestGroupAdvantages:
    def test_any_function(self, random):
        rewards = random.normal(size=(6, 5)).astype(np.float32)

        def centred(group):
            return group - group.mean()

        got = group_advantages(centred, rewards)
        expected = rewards - rewards.mean(-1, keepdims=True)
        np.testing.assert_allclose(got, expected, atol=1e-6)

    def test_a_function_without_tables_takes_no_mask(self):
        rewards, mask = np.ones((2, 4)), np.ones((2, 4), bool)
        for method in (lambda group: group, advantages.table("rloo", 4)):
            with pytest.raises(ValueError, match="table_family"):
                group_advantages(method, rewards, mask)

    def test_batches_only(self):
        with pytest.raises(ValueError, match="num_prompts, group_size"):
            group_advantages(advantages.get("rloo"), np.ones(4))

    def test_compiles_once(self):
        traces = []

        def fn(group):
            traces.append(group.shape)
            return group

        for _ in range(3):
            group_advantages(fn, np.ones((2, 4)))
        assert traces == [(4,)]

    def test_inside_jit_and_with_tabulated_functions(self, random):
        rewards = random.integers(0, 2, (6, 5)).astype(np.float32)
        expected = group_advantages(advantages.get("dr_grpo"), rewards)

        @jax.jit
        def weigh(rewards):
            return group_advantages(tabulate(lambda r: r - r.mean(), 5), rewards)

        np.testing.assert_allclose(weigh(rewards), expected, rtol=1e-6)
