"""A small share of the fault harness; `python -m tests.faults` is the whole."""

import secrets

import pytest
from faults import survive

from tests import fault_walk


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.multiprocess
def test_four_kills_change_nothing(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    report = survive(4, 16, seed, tmp_path)
    assert report.kills == 4
    assert report.good, report


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.multiprocess
def test_a_few_cases_of_the_walk(tmp_path):
    """Two or three faults at once; the same bits or a refusal with a way out."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    cases = fault_walk.walk(8, seed, tmp_path)
    assert len(cases) == 8
    wrong = [case for case in cases if not case.good]
    assert not wrong, "\n".join(map(str, wrong))
