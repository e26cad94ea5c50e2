"""Digests: every bit and every place counts, on every mesh; differences are named."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.training.state import TrainState

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8, jnp.int8)


def oracle(array):
    """The sums of the docstring, entry by entry, in Python integers."""

    def mixed(word):
        word = ((word ^ (word >> 16)) * 0x85EBCA6B) % 2**32
        word = ((word ^ (word >> 13)) * 0xC2B2AE35) % 2**32
        return word ^ (word >> 16)

    flat = np.asarray(array).reshape(-1)
    words = flat.view(f"u{flat.dtype.itemsize}").tolist()
    sums = [0] * 4
    for position, word in enumerate(words):
        key = mixed((position + 0x9E3779B9) % 2**32)
        value = mixed(word ^ key)
        odd = [1, *((key * c | 1) for c in (0xCC9E2D51, 0x1B873593, 0xE6546B65))]
        sums = [(total + value * o) % 2**32 for total, o in zip(sums, odd, strict=True)]
    return sums


def some(random, shape, dtype):
    if dtype is bool:
        return random.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    bits = np.frombuffer(random.bytes(size), f"u{jnp.dtype(dtype).itemsize}")
    return bits.reshape(shape).view(dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, bool])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5), (0, 4)])
def test_a_fingerprint_is_its_formula(random, shape, dtype):
    array = some(random, shape, dtype)
    found = jax.jit(digests.fingerprint)(array)
    assert (found.shape, found.dtype) == ((4,), jnp.uint32)
    np.testing.assert_array_equal(found, np.array(oracle(array), np.uint32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_single_bit_changes_all_four_words(random, dtype):
    array = some(random, (2, 3), dtype)
    print_of = jax.jit(digests.fingerprint)
    first = np.asarray(print_of(array))
    width = array.dtype.itemsize * 8
    for place in range(array.size):
        for bit in range(width):
            other = array.copy()
            other.reshape(-1).view(f"u{width // 8}")[place] ^= 1 << bit
            assert (np.asarray(print_of(other)) != first).all(), (place, bit)


def test_places_signs_and_zeros_count(random):
    array = random.normal(size=(4, 6)).astype(np.float32)
    print_of = jax.jit(digests.fingerprint)

    def same(other):
        return bool((print_of(other) == print_of(array)).any())

    swapped = array.copy()
    swapped[0, 0], swapped[3, 5] = array[3, 5], array[0, 0]
    two_signs = array.copy()
    two_signs[0, 0], two_signs[2, 1] = -array[0, 0], -array[2, 1]
    assert not same(swapped) and not same(two_signs) and not same(-array)
    assert not same(array[::-1]) and not same(np.roll(array, 1))
    zeros = np.zeros((4, 6), np.float32)
    assert (print_of(zeros) != print_of(-zeros)).all()


def test_many_random_changes_are_all_noticed(random):
    array = jnp.asarray(random.normal(size=(8, 8)), jnp.float32)
    changes = random.integers(0, 2**32, (20_000, 8, 8), dtype=np.uint32)
    changes *= random.integers(0, 2, changes.shape, dtype=np.uint32)  # some are none
    bits = jax.lax.bitcast_convert_type(array, jnp.uint32)
    many = jax.lax.bitcast_convert_type(bits[None] ^ changes, jnp.float32)
    prints = np.asarray(jax.jit(jax.vmap(digests.fingerprint))(many))
    assert len({row.tobytes() for row in prints}) == len(
        {row.tobytes() for row in changes}
    )


@pytest.mark.parametrize("spec", [("a", "b"), ("b", None), (None, "a"), (("a", "b"),)])
def test_sharding_changes_nothing(random, spec):
    array = random.normal(size=(16, 24)).astype(np.float32)
    mesh = jax.make_mesh(
        (2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    placed = jax.device_put(array, sharding)
    compiled = jax.jit(digests.fingerprint).lower(placed).compile()
    np.testing.assert_array_equal(compiled(placed), np.array(oracle(array), np.uint32))


def test_wide_entries_are_refused():
    with pytest.raises(ValueError, match=r"^dtype=complex64: expected entries of 8"):
        digests.fingerprint(jnp.zeros(2, jnp.complex64))


def batch(random):
    prompts = Prompts(
        tokens=random.integers(0, 9, (2, 3)).astype(np.int32),
        lengths=np.array([3, 2], np.int32),
        ids=np.array([4, 5], np.uint32),
    )
    completions = Completions(
        tokens=random.integers(0, 9, (2, 4, 5)).astype(np.int32),
        lengths=random.integers(1, 6, (2, 4)).astype(np.int32),
        truncated=random.integers(0, 2, (2, 4)).astype(bool),
        sampler_logprobs=random.normal(size=(2, 4, 5)).astype(np.float32),
        loss_mask=random.random((2, 4, 5)) < 0.5,
        policy_step=random.integers(0, 9, (2, 4)).astype(np.int32),
    )
    rewards = random.normal(size=(2, 4)).astype(np.float32)
    return Batch(prompts, completions, rewards, np.ones((2, 4), bool))


def test_every_array_of_a_batch_has_its_digest(random):
    one = batch(random)
    found = digests.batch_digests(one)
    assert [len(found[phase]) for phase in ("rollout", "verification")] == [9, 2]
    leaves = jax.tree.leaves(one)
    assert len(leaves) == 11
    values = [value for phase in found.values() for value in phase.values()]
    assert {digests.host_digest(leaf) for leaf in leaves} == set(values)
    expected = b"<f4(2, 4)" + one.rewards.tobytes()
    assert found["verification"]["rewards"] == hashlib.sha256(expected).hexdigest()[:32]


def test_a_host_digest_sees_dtype_shape_and_order():
    array = np.arange(6, dtype=np.int32)
    same = [array.view(np.uint32), array.reshape(2, 3), array[::-1], array.view("f4")]
    values = {digests.host_digest(one) for one in (array, *same)}
    assert len(values) == 5
    turned = np.asfortranarray(array.reshape(2, 3))
    assert digests.host_digest(turned) == digests.host_digest(array.reshape(2, 3))


def test_the_first_phase_and_its_arrays_are_named(random):
    one = batch(random)
    none = np.zeros((2, 4), np.float32)
    state = TrainState(
        trainable={"w": jnp.ones((3, 4))},
        frozen={"u": jnp.ones(2)},
        opt_state=({"mu": jnp.zeros(3)},),
        step=jnp.int32(1),
        skipped=jnp.int32(0),
    )

    def row(batch, weights=none, state=state):
        rest = digests.update_digests(weights) | digests.state_digests(state)
        return digests.batch_digests(batch) | rest

    first = row(one)
    assert list(first) == list(digests.PHASES)
    names = ["trainable/w", "frozen/u", "opt_state/0/mu", "step", "skipped"]
    assert list(first["state"]) == names
    assert digests.first_difference(first, row(one)) is None
    judged = dataclasses.replace(one, rewards=one.rewards + 1)
    entry = {"w": jnp.ones((3, 4)).at[2, 1].set(1.5)}
    moved = dataclasses.replace(state, trainable=entry)
    assert digests.first_difference(first, row(judged, state=moved)) == (
        "verification",
        ["rewards"],
    )
    assert digests.first_difference(first, row(one, np.ones((2, 4)), moved)) == (
        "update",
        ["weights"],
    )
    assert digests.first_difference(first, row(one, state=moved)) == (
        "state",
        ["trainable/w"],
    )
    less = {phase: dict(arrays) for phase, arrays in first.items()}
    del less["state"]["step"], less["rollout"]
    assert digests.first_difference(first, less) == ("state", ["step"])
