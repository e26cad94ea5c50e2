"""Partition rules: where parameters, optimizer state and batches live on 8 devices."""

import re
import secrets

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_surrogate.parallel import MeshConfig, make_mesh, partition

AXES = {
    "embed": ("vocab", "embed"),
    "layers": {
        "q": ("layers", "embed", "heads", "head_dim"),
        "k": ("layers", "embed", "kv_heads", "head_dim"),
        "up": ("layers", "embed", "mlp"),
        "norm": ("layers", None),
    },
    "norm": (None,),
}
SHAPES = {
    "embed": (32, 8),
    "layers": {"q": (3, 8, 4, 2), "k": (3, 8, 2, 2), "up": (3, 8, 12), "norm": (3, 8)},
    "norm": (8,),
}


def is_shape(node):
    return isinstance(node, tuple)


@pytest.fixture
def rng():
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # shown when the test fails
    return np.random.default_rng(seed)


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])


@pytest.fixture
def params():
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=is_shape
    )


def specs(shardings):
    return jax.tree.map(lambda s: tuple(s.spec), shardings)


def test_parameters_follow_the_table(mesh, params):
    assert specs(partition.param_shardings(mesh, AXES, params)) == {
        "embed": ("tensor", "fsdp"),
        "layers": {
            "q": (None, "fsdp", "tensor", None),
            "k": (None, "fsdp", "tensor", None),
            "up": (None, "fsdp", "tensor"),
            "norm": (None, None),
        },
        "norm": (None,),
    }


def test_few_key_value_heads_stay_whole(params):
    mesh = make_mesh(MeshConfig(data=2, tensor=4), jax.devices()[:8])
    found = specs(partition.param_shardings(mesh, AXES, params))
    assert found["layers"]["k"] == (None, "fsdp", None, None)
    assert found["layers"]["q"] == (None, "fsdp", "tensor", None)


def test_an_uneven_split_names_array_axis_and_sizes(params):
    mesh = make_mesh(MeshConfig(data=1, tensor=8), jax.devices()[:8])
    message = (
        "layers/q: axis 'heads' of size 4 in shape (3, 8, 4, 2) cannot be split 8 ways "
        "over mesh axis 'tensor'; expected a multiple of 8"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        partition.param_shardings(mesh, AXES, params)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (("embed",), r"^w: logical axes \('embed',\) name 1 dimensions.*\(8, 8\)"),
        (("embed", "width"), r"^w: logical axis 'width' has no rule"),
        (("vocab", "mlp"), r"^w: logical axes 'vocab' and 'mlp' both ask .*'tensor'"),
    ],
)
def test_wrong_axes_are_refused(mesh, axes, message):
    with pytest.raises(ValueError, match=message):
        partition.partition_spec(mesh, axes, (8, 8), "w")


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(1e-3),
        optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-3)),
        optax.sgd(1e-3, momentum=0.9),
        optax.MultiSteps(optax.adam(1e-3), 2),
        optax.masked(optax.adam(1e-3), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    ],
    ids=["adamw", "lion", "sgd", "multi_steps", "masked"],
)
def test_moments_live_with_their_parameter(mesh, params, optimizer):
    shardings = partition.param_shardings(mesh, AXES, params)
    state = jax.eval_shape(optimizer.init, params)
    found = partition.state_shardings(mesh, shardings, state, params)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    by_name = dict(jax.tree.leaves_with_path(shardings))
    moments = 0
    for path, sharding in jax.tree.leaves_with_path(found):
        owners = [name for name in by_name if path[-len(name) :] == name]
        owner = max(owners, key=len, default=None)
        expected = by_name[owner] if owner else partition.replicated(mesh)
        assert sharding == expected, jax.tree_util.keystr(path)
        moments += owner is not None
    assert moments >= 4


def test_names_alone_do_not_make_a_moment(mesh, params):
    """Adafactor keeps factored moments under the names of the parameters."""
    shardings = partition.param_shardings(mesh, AXES, params)
    optimizer = optax.adafactor(1e-3, min_dim_size_to_factor=4)
    state = jax.eval_shape(optimizer.init, params)
    found = partition.state_shardings(mesh, shardings, state, params)
    real = jax.jit(
        lambda: optimizer.init(jax.tree.map(lambda p: jnp.zeros(p.shape), params)),
        out_shardings=found,
    )()
    shapes = jax.tree.map(lambda x: x.shape, real)
    assert shapes == jax.tree.map(lambda x: x.shape, state)


def test_the_same_rule_serves_a_whole_train_state(mesh, params):
    shardings = partition.param_shardings(mesh, AXES, params)
    state = {
        "params": params,
        "moments": jax.eval_shape(optax.adam(1e-3).init, params),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    found = partition.state_shardings(mesh, shardings, state, params)
    assert found["params"] == shardings
    assert found["step"] == partition.replicated(mesh)
    assert found["moments"][0].nu == shardings


def test_one_bare_array_is_a_parameter_tree_too(mesh):
    array = jax.ShapeDtypeStruct((8, 12), jnp.float32)
    sharding = partition.param_shardings(mesh, ("embed", "mlp"), array)
    state = jax.eval_shape(optax.adam(1e-3).init, array)
    found = partition.state_shardings(mesh, sharding, state, array)
    assert found[0].mu == sharding
    assert found[0].count == partition.replicated(mesh)


def test_a_sharded_step_equals_the_step_on_one_device(mesh, rng):
    """Born sharded, updated sharded: the numbers of a single device."""
    axes = {"up": ("embed", "mlp"), "down": ("mlp", "embed")}
    values = {"up": rng.normal(size=(8, 12)), "down": rng.normal(size=(12, 8))}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)
    inputs = jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)
    optimizer = optax.adamw(1e-2)

    def step(mesh, params, moments, x):
        def loss(p, x):
            hidden = jax.nn.silu(x @ p["up"])
            if mesh is not None:
                hidden = partition.constrain(hidden, mesh, "batch", "mlp")
            return jnp.mean((hidden @ p["down"] - x) ** 2)

        value, grads = jax.value_and_grad(loss)(params, x)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    plain = jax.jit(lambda *a: step(None, *a))(params, optimizer.init(params), inputs)

    where = partition.param_shardings(mesh, axes, params)
    abstract = jax.eval_shape(optimizer.init, params)
    moments_where = partition.state_shardings(mesh, where, abstract, params)
    sharded = jax.device_put(params, where)
    moments = jax.jit(optimizer.init, out_shardings=moments_where)(sharded)
    found = jax.jit(
        lambda *a: step(mesh, *a),
        in_shardings=(where, moments_where, partition.batch_sharding(mesh)),
        out_shardings=(where, moments_where, partition.replicated(mesh)),
    )(sharded, moments, jax.device_put(inputs, partition.batch_sharding(mesh)))

    assert found[0]["up"].sharding == where["up"]
    assert found[0]["up"].addressable_shards[0].data.shape == (4, 6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
        found,
        plain,
    )


def test_batch_is_split_over_data_and_fsdp(mesh):
    x = jax.device_put(np.arange(32).reshape(8, 4), partition.batch_sharding(mesh))
    assert {s.data.shape for s in x.addressable_shards} == {(2, 4)}
    assert partition.batch_sharding(mesh).spec == PartitionSpec(
        ("data", "fsdp", "expert")
    )


def test_constrain_refuses_a_batch_that_does_not_split(mesh):
    with pytest.raises(ValueError, match=r"^activation: axis 'batch' of size 6"):
        partition.constrain(jnp.zeros((6, 8)), mesh, "batch", None)


def test_abstract_like_joins_shape_and_sharding(mesh, params):
    shardings = partition.param_shardings(mesh, AXES, params)
    joined = partition.abstract_like(params, shardings)
    assert joined["embed"] == jax.ShapeDtypeStruct(
        (32, 8), jnp.float32, sharding=shardings["embed"]
    )


def test_describe_prints_what_a_device_holds(mesh, params):
    lines = partition.describe(
        partition.param_shardings(mesh, AXES, params), params
    ).split("\n")
    q = next(line for line in lines if line.startswith("layers/q "))
    assert " ".join(q.split()) == (
        "layers/q float32 3x8x4x2 -, fsdp, tensor, - 3x4x2x2 0.00"
    )
    assert lines[-1].split()[0] == "total"

    big = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    table = partition.describe(
        {
            "a": NamedSharding(mesh, PartitionSpec("fsdp")),
            "n": partition.replicated(mesh),
        },
        {"a": big, "n": scalar},
    )
    assert "512x1024" in table and "2.00" in table and "scalar" in table
