"""A small share of the fault harness; `python -m tests.faults` is the whole."""

import secrets

import pytest
from faults import survive


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.multiprocess
def test_four_kills_change_nothing(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    report = survive(4, 16, seed, tmp_path)
    assert report.kills == 4
    assert report.good, report
