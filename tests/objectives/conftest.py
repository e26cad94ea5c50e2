"""Fresh random inputs for the tests of objectives."""

import secrets

import numpy as np
import pytest


@pytest.fixture
def generator():
    """A NumPy generator with a new seed each time; the seed shows when a test fails."""
    seed = secrets.randbits(32)
    print(f"np.random.default_rng({seed})")
    return np.random.default_rng(seed)
