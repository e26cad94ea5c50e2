"""Rewards on disk: nothing is judged twice, and no damaged line counts."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_surrogate.batch import Completions, Prompts
from jaxrl_surrogate.loop.verification import Verification
from jaxrl_surrogate.storage.reward_journal import RewardJournal, keep_only
from jaxrl_surrogate.tasks import Problem, Verdict, tokenizers
from jaxrl_surrogate.tasks.config import TaskConfig


class Counting:
    """Remembers what it judged; is interrupted at the problem it is told."""

    def __init__(self):
        self.judged, self.stop_at = [], None

    def verify(self, problem, completion):
        if problem.id == self.stop_at:
            raise KeyboardInterrupt
        self.judged.append(problem.id)
        if problem.id == 3:
            return Verdict(0.0, ok=False, note="no idea")
        return Verdict(problem.id / 7)


@pytest.fixture
def case(random):
    task, prompts, samples = Counting(), 6, 5
    shape = (prompts, samples)
    verification = Verification(
        task=task,
        tokenizer=tokenizers.get("ascii"),
        config=TaskConfig(),
        reward_mode="layer_cake",
    )
    batch = (
        [Problem("1+1=", 2, id=i) for i in range(prompts)],
        Prompts(
            np.zeros((prompts, 4), np.int32),
            np.ones(prompts, np.int32),
            np.arange(prompts, dtype=np.uint32),
        ),
        Completions(
            random.integers(8, 90, (*shape, 3), dtype=np.int32),
            np.full(shape, 3, np.int32),
            np.zeros(shape, bool),
            np.zeros((*shape, 3), np.float32),
            np.ones((*shape, 3), bool),
            np.zeros(shape, np.int32),
        ),
    )
    return task, verification, batch


def test_an_interrupted_verification_goes_on_where_it_was(case, tmp_path):
    task, verification, sampled = case
    whole, notes = verification.verify(*sampled)
    assert notes.tolist() == [["no idea" if i == 3 else ""] * 5 for i in range(6)]
    path = tmp_path / "rewards" / "7.jsonl"
    task.judged.clear()
    task.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        verification.verify(*sampled, RewardJournal(path))
    assert set(task.judged) == {0, 1, 2, 3}
    task.judged.clear()
    task.stop_at = None
    batch, _ = verification.verify(*sampled, RewardJournal(path))
    assert set(task.judged) == {4, 5}
    np.testing.assert_array_equal(batch.rewards, whole.rewards)
    np.testing.assert_array_equal(batch.reward_mask, whole.reward_mask)
    task.judged.clear()
    verification.verify(*sampled, RewardJournal(path))
    assert task.judged == []


def test_a_completion_cut_at_the_limit_is_treated_after_the_journal(case, tmp_path):
    _, verification, (problems, prompts, completions) = case
    cut = dataclasses.replace(completions, truncated=completions.lengths > 0)
    masking = dataclasses.replace(verification, overlong="mask")
    path = tmp_path / "1.jsonl"
    for _ in range(2):
        batch, _ = masking.verify(problems, prompts, cut, RewardJournal(path))
        assert not batch.reward_mask.any()


def test_floats_are_exact_and_damaged_lines_do_not_count(case, tmp_path, random):
    _, _, (_, prompts, completions) = case
    path = tmp_path / "3.jsonl"
    rewards = random.normal(size=(3, 5)).astype(np.float32)

    def add(journal, group):
        mask = rewards[group] > 0
        journal.add(group, prompts, completions, rewards[group], mask)

    def known(told=None):
        told = [] if told is None else told
        return RewardJournal(path, told.append).known(prompts, completions)

    journal = RewardJournal(path)
    for group in range(3):
        add(journal, group)
    found = known()
    for group in range(3):
        assert found[group][0].tobytes() == rewards[group].tobytes()
        np.testing.assert_array_equal(found[group][1], rewards[group] > 0)
    content, told = path.read_bytes(), []
    path.write_bytes(content.replace(b'"judged"', b'"judge\xff"', 1))
    assert sorted(known(told)) == [1, 2]
    assert told == [f"{path}: line 2 is cut or damaged; its group is judged again"]
    path.write_bytes(content[:-20])  # cut by a kill
    assert sorted(known()) == [0, 1]
    add(RewardJournal(path), 2)
    assert sorted(known()) == [0, 1, 2]


def test_rewards_of_other_completions_do_not_count(case, tmp_path):
    """A journal that a rollout left which was set aside; groups that are not there."""
    task, verification, (problems, prompts, completions) = case
    path = tmp_path / "3.jsonl"
    verification.verify(problems, prompts, completions, RewardJournal(path))
    tokens = completions.tokens.copy()
    tokens[2, 4, 1] ^= 1
    other = dataclasses.replace(completions, tokens=tokens)
    task.judged.clear()
    verification.verify(problems, prompts, other, RewardJournal(path))
    assert set(task.judged) == {2}
    fewer = jax.tree.map(lambda x: x[:2], (prompts, completions))
    task.judged.clear()
    batch, _ = verification.verify(problems[:2], *fewer, RewardJournal(path))
    assert batch.rewards.shape == (2, 5) and task.judged == []


def test_journals_of_other_steps_are_removed(tmp_path):
    for step in (1, 2, 3):
        (tmp_path / f"{step}.jsonl").write_text("")
    keep_only(tmp_path, {2})
    assert [path.name for path in tmp_path.iterdir()] == ["2.jsonl"]
