"""JAX as strict as it can be set, on eight devices of one CPU."""

import os
import shutil
import tempfile

# Before JAX is imported: its devices are counted once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("NPROC", "64")  # as `parallel.enough_host_threads` says
# One folder of compiled programs for the session: runs of the same model, and the
# processes that tests start, compile a program once. A folder that is given is kept.
_COMPILED = "JAX_COMPILATION_CACHE_DIR"
_OWN = None
if _COMPILED not in os.environ:
    _OWN = os.environ[_COMPILED] = tempfile.mkdtemp(prefix="jaxrl-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import secrets

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure():
    if _OWN is not None:
        shutil.rmtree(_OWN, ignore_errors=True)


@pytest.fixture
def random(request):
    """Fresh random inputs; the seed is printed when the test fails."""
    seed = secrets.randbits(32)
    print(f"seed of this run of {request.node.name}: {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def quick_compiler():
    """For programs that run once: compiling them well would take most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
