"""When the verdicts of a batch stop a run, and what is said then."""

import re

import numpy as np
import pytest

from jaxrl_surrogate import settings, tasks
from jaxrl_surrogate.loop.verdicts import check_verdicts, graded_warning
from jaxrl_surrogate.storage.stops import VerifierError
from jaxrl_surrogate.tasks.config import TaskConfig

TASK = tasks.get("arithmetic")
SHAPE = (3, 4)
MOST = 0.25  # share of completions without a verdict that is allowed


def text(group, sample):
    return f"prompt {group}", f"completion {group}.{sample}"


def check(
    most=MOST, mode="binary", *, rewards=None, failed=(), counted=None, notes=None
):
    mask = np.ones(SHAPE, bool)
    for place in failed:
        mask[place] = False
    said = np.where(mask, "", "out of time").astype(object)
    check_verdicts(
        TASK,
        most,
        mode,
        np.zeros(SHAPE, np.float32) if rewards is None else rewards,
        mask,
        np.ones(SHAPE, bool) if counted is None else counted,
        said if notes is None else notes,
        text,
        "step 7",
    )


def test_more_failures_than_allowed_stop():
    failed = [(0, 1), (1, 3), (2, 0)]
    check(failed=failed)  # 3 of 12 are 0.25, and no more
    with pytest.raises(VerifierError) as stop:
        check(failed=[*failed, (2, 2)])
    message = str(stop.value)
    assert message.startswith("step 7: no verdict on 4 of 12 completions, more than")
    assert "task.verify_max_failures=0.25" in message
    assert "out of time (4 times)" in message
    assert "prompt: 'prompt 0'\n  completion: 'completion 0.1'" in message
    assert re.search(r"verifier: Arithmetic\.verify, .*arithmetic\.py:\d+\n", message)
    check(0.9, failed=[*failed, (2, 2)])


def test_a_batch_without_any_verdict_stops_whatever_is_allowed():
    most = np.nextafter(1, 0)
    every = list(np.ndindex(SHAPE))
    check(most, failed=every[1:])
    # Even where another process knew why: a journal says that there is no verdict.
    with pytest.raises(VerifierError, match=r"12 of 12.*gives no reason"):
        check(most, failed=every, notes=np.full(SHAPE, "", object))


def test_completions_that_do_not_count_do_not_stop():
    counted = np.ones(SHAPE, bool)
    counted[:2] = False
    check(failed=list(np.ndindex(2, 4)), counted=counted)
    with pytest.raises(VerifierError, match="no verdict on 2 of 4"):
        check(failed=[*np.ndindex(2, 4), (2, 1), (2, 3)], counted=counted)
    counted[:] = False
    check(failed=list(np.ndindex(SHAPE)), counted=counted)


def test_the_completion_shown_is_one_that_the_first_reason_belongs_to():
    notes = np.full(SHAPE, "", object)
    notes[0, 0], notes[1, 1], notes[1, 2] = "once", "twice", "twice"
    with pytest.raises(VerifierError, match=r"twice \(2 times\); once(.|\n)*n 1\.1'"):
        check(failed=[(0, 0), (1, 1), (1, 2), (2, 2)], notes=notes)


@pytest.mark.parametrize("kind", ["binary", "mean"])
@pytest.mark.parametrize("value", [7.0, -0.5, np.nextafter(np.float32(1), 2)])
def test_rewards_outside_the_unit_interval(kind, value):
    rewards = np.zeros(SHAPE, np.float32)
    rewards[0, 0], rewards[1, 2] = 1, value
    with pytest.raises(VerifierError) as stop:
        check(mode=kind, rewards=rewards)
    message = str(stop.value)
    assert message.startswith("step 7: 1 of 12 rewards are not in [0, 1]")
    assert f"objective.rewards={kind} cannot" in message
    assert "completion: 'completion 1.2'" in message
    # Level by level any reward will do, and one that does not count is none.
    check(mode="layer_cake", rewards=rewards)
    check(mode=kind, rewards=rewards, failed=[(1, 2)])


def test_what_counts_as_what_is_said_of_grades():
    rewards = np.zeros(SHAPE, np.float32)
    mask = np.ones(SHAPE, bool)
    rewards[0, 0] = 1
    assert graded_warning(TASK, rewards, mask, text) is None
    rewards[2, 1] = 0.25
    assert "0.25 as incorrect" in graded_warning(TASK, rewards, mask, text)
    rewards[1, 1] = 0.5
    warning = graded_warning(TASK, rewards, mask, text)
    assert "2 of 12 rewards" in warning and "0.5 as correct" in warning
    assert "completion: 'completion 1.1'" in warning
    mask[1, 1] = mask[2, 1] = False
    assert graded_warning(TASK, rewards, mask, text) is None


def test_a_share_of_one_or_more_is_refused():
    for value in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="verify_max_failures"):
            settings.from_dict(TaskConfig, {"verify_max_failures": value})
