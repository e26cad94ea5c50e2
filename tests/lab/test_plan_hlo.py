"""Costs read from compiled text, against programs whose costs are known."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_surrogate.lab.plan import collectives, cost, topology

TPU = pytest.mark.skipif(
    not topology.available(), reason="XLA's TPU compiler is not installed"
)


def _cost(function, *shapes, sharding=None):
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in shapes
    ]
    compiled = jax.jit(function).lower(*arguments).compile()
    return cost.read_cost(compiled.as_text(), 1), compiled


@pytest.fixture(params=["cpu", pytest.param("v5e:2x2", marks=TPU)])
def where(request):
    return jax.sharding.SingleDeviceSharding(topology.get(request.param).devices[0])


def test_a_product_takes_two_operations_a_pair(where, random):
    m, k, n = (int(x) * 128 for x in random.integers(16, 24, size=3))
    found, _ = _cost(lambda a, b: a @ b, (m, k), (k, n), sharding=where)
    assert found.flops == 2 * m * k * n
    assert found.bytes == pytest.approx(4 * (m * k + k * n + m * n), rel=0.01)


def test_batched_and_transposed_products(where, random):
    """A TPU writes batch axes as windows with holes: those positions are no work."""
    b, m, k, n = (int(x) for x in random.integers(2, 5, size=4) * [1, 8, 16, 32])
    shapes = (b, m, k), (b, n, k)
    found, _ = _cost(
        lambda x, y: jnp.einsum("bmk,bnk->bnm", x, y), *shapes, sharding=where
    )
    assert found.flops == 2 * b * m * k * n


def test_loops_count_as_often_as_they_run(where, random):
    layers, inner = (int(x) for x in random.integers(2, 9, size=2))

    def run(x, weights):
        def layer(x, w):
            for_inner = lambda x, _: (jnp.tanh(x @ w), None)  # noqa: E731
            return jax.lax.scan(for_inner, x, None, length=inner)[0], None

        return jax.lax.scan(layer, x, weights)[0]

    found, _ = _cost(run, (8, 128), (layers, 128, 128), sharding=where)
    assert found.flops == layers * inner * 2 * 8 * 128 * 128
    assert not any(work.unknown_trips for work in found.work)


def test_a_loop_that_may_stop_counts_to_its_bound_and_the_next_goes_on(where):
    def segments(x, w):
        count = jnp.int32(0)
        for end in (5, 12):

            def running(state, end=end):
                return (state[0] < end) & (state[1].max() < 1e6)

            def body(state):
                return state[0] + 1, jnp.tanh(state[1] @ w)

            count, x = jax.lax.while_loop(running, body, (count, x))
        return x

    found, _ = _cost(segments, (8, 128), (128, 128), sharding=where)
    assert found.flops == 12 * 2 * 8 * 128 * 128
    products = [work for work in found.work if work.flops]
    assert sorted(work.times for work in products) == [5, 7]
    assert all(loop.may_stop for work in products for loop in work.loops)


@pytest.mark.parametrize("known", [True, False])
def test_a_loop_that_the_compiler_unrolled_runs_less_often(where, random, known):
    """Its counter rises by more than one, on either side of a fusion."""
    first, limit, stride = (int(x) for x in random.integers([0, 9, 2], [5, 30, 6]))

    def run(x, w):
        def body(state):
            return state[0] + stride, jnp.tanh(state[1] @ w)

        start = (jnp.int32(first), x)
        return jax.lax.while_loop(lambda state: state[0] < limit, body, start)[1]

    _, compiled = _cost(run, (8, 128), (128, 128), sharding=where)
    text = compiled.as_text()
    if not known:
        text = re.sub(r'"known_trip_count":\{[^}]*\}', "", text)
    found = cost.read_cost(text, 1)
    assert found.flops == -(-(limit - first) // stride) * 2 * 8 * 128 * 128


def test_one_layer_of_a_stack_is_read_and_not_the_stack(where):
    """Sliced and updated arrays count by what is taken and put."""
    layers = 32

    def run(x, weights, cache):
        def layer(carry, scanned):
            x, cache = carry
            index, w = scanned
            x = jnp.tanh(x @ w)
            put = jax.lax.dynamic_update_index_in_dim(cache, x, index, 0)
            return (x, put), None

        return jax.lax.scan(layer, (x, cache), (jnp.arange(layers), weights))[0]

    # As large as HBM arrays have to be to stay out of on-chip memory.
    found, _ = _cost(run, (512, 1024), (layers, 1024, 1024), (layers, 512, 1024),
                     sharding=where)  # fmt: skip
    weights, rows = 4 * layers * 1024 * 1024, 4 * layers * 512 * 1024
    assert weights <= found.bytes < 2.5 * (weights + 4 * rows)


def test_without_loops_the_flops_are_those_of_xla(random):
    sizes = [int(x) for x in random.integers(8, 64, size=4)]
    a, b, c, d = sizes
    found, compiled = _cost(
        lambda x, y, z: jnp.tensordot(x @ y, z, 1), (a, b), (b, c), (c, d)
    )
    analysis = compiled.cost_analysis()
    assert found.flops == pytest.approx(analysis["flops"], rel=1e-3)


def test_positions_of_windows_against_counting(random):
    for _ in range(50):
        size, kernel, stride, dilate, apart = (
            int(x) for x in random.integers(1, 6, size=5)
        )
        low = int(random.integers(0, 4))
        out = int(random.integers(1, 9))
        spread = np.zeros(1000)
        spread[100 : 100 + size * dilate : dilate] = 1
        expected = sum(
            spread[100 - low + o * stride + k * apart] > 0
            for o, k in itertools.product(range(out), range(kernel))
        )
        found = cost._valid_positions(size, kernel, out, stride, dilate, apart, low)
        assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("mesh['axis_0'=2,'axis_1'=2] {'axis_0'}", [[0, 2], [1, 3]]),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", [[3, 2], [1, 0]]),
        ("mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("{}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_in_every_notation(text, expected):
    found = collectives._groups(f", replica_groups={text}, x=1", "all-gather", 4)
    assert sorted(map(sorted, found.tolist())) == sorted(map(sorted, expected))


@pytest.mark.parametrize("axes", [("a",), ("b",), ("c",), ("a", "c"), ("a", "b", "c")])
def test_collectives_are_named_by_the_axes_they_run_along(axes):
    mesh = jax.make_mesh(
        (2, 2, 2), ("a", "b", "c"), axis_types=(jax.sharding.AxisType.Auto,) * 3
    )
    split = NamedSharding(mesh, PartitionSpec(axes))
    whole = NamedSharding(mesh, PartitionSpec())
    argument = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=split)
    compiled = jax.jit(lambda x: x * 2, out_shardings=whole).lower(argument).compile()
    (work,) = cost.read_cost(compiled.as_text(), 8).collectives
    each = work.collective
    assert each.kind == "all-gather" and each.axes(mesh) == axes
    assert each.bytes == 4 * 64 * 16 and each.largest == 64 * 16
    assert each.members == math.prod(2 for _ in axes)
