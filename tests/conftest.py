"""JAX as strict as it can be set, on eight devices of one CPU."""

import os

# Before JAX is imported: its devices are counted once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("NPROC", "64")  # as `parallel.enough_host_threads` says
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import importlib.util
import secrets
import shutil
import tempfile

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

COMPILED = "JAX_COMPILATION_CACHE_DIR"


def pytest_addoption(parser):
    parser.addoption(
        "--full-compiler",
        action="store_true",
        help="compile as for users; without it XLA optimizes little, and takes a "
        "fifth of the time",
    )


def pytest_configure(config):
    """How the session and all processes that it starts compile, and where to.

    Runs of the same model compile each program once. A folder that the environment
    names is used and kept.
    """
    config.own_folder = None
    if COMPILED not in os.environ:
        config.own_folder = os.environ[COMPILED] = tempfile.mkdtemp(prefix="compiled-")
        jax.config.update("jax_compilation_cache_dir", config.own_folder)
    if not config.getoption("--full-compiler"):
        jax.config.update("jax_disable_most_optimizations", True)
        # Later ones have one emitter; XLA's compiler for TPUs ends a process for a flag
        # that it does not know.
        plans_for_tpus = importlib.util.find_spec("libtpu") is not None
        if jax.__version_info__ < (0, 11) and not plans_for_tpus:
            os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"


def pytest_unconfigure(config):
    if config.own_folder is not None:
        del os.environ[COMPILED]
        shutil.rmtree(config.own_folder, ignore_errors=True)


@pytest.fixture
def random(request):
    """Fresh random inputs; the seed is printed when the test fails."""
    seed = secrets.randbits(32)
    print(f"seed of this run of {request.node.name}: {seed}")
    return np.random.default_rng(seed)
