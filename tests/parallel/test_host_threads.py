"""Eight devices on few cores: programs with collectives side by side come to an end."""

import os
import subprocess
import sys

import pytest

from jaxrl_surrogate.parallel import enough_host_threads

FLAG = "--xla_force_host_platform_device_count=8"

PROGRAM = """
from jaxrl_surrogate.parallel import enough_host_threads
enough_host_threads()
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((2, 2, 2), ("a", "b", "c"),
                     axis_types=(jax.sharding.AxisType.Auto,) * 3)
def sums(x):
    return [jax.lax.psum(jnp.sin(x * k), axis).sum()
            for k in range(1, 9) for axis in "abc"]
step = jax.jit(jax.shard_map(
    lambda x: sum(sums(x)), mesh=mesh, in_specs=PartitionSpec("a", "b", "c"),
    out_specs=PartitionSpec(), check_vma=False))
x = jax.device_put(jnp.ones((8, 8, 8)),
                   NamedSharding(mesh, PartitionSpec("a", "b", "c")))
for turn in range(200):
    out = step(x)
print(float(out))
"""


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({"XLA_FLAGS": f"--xla_x=1 {FLAG}"}, "64"),
        ({"XLA_FLAGS": FLAG, "NPROC": "3"}, "3"),
        ({"XLA_FLAGS": FLAG.replace("8", "1")}, None),
        ({}, None),
    ],
)
def test_threads_follow_the_devices_asked_for(given, threads):
    enough_host_threads(given)
    assert given.get("NPROC") == threads


@pytest.mark.multiprocess
def test_collectives_side_by_side_end():
    kept = {name: value for name, value in os.environ.items() if name != "NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"XLA_FLAGS": FLAG},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
