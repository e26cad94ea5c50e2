"""The prompt stream: a permutation each epoch, exact restoration, encoding."""

import json

import numpy as np
import pytest

from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks import Problem, PromptStream, encode_prompts
from jaxrl_surrogate.tasks.prompts import Subset

SOURCE = [Problem(f"q{number}", number) for number in range(11)]


def _answers(problems):
    return [problem.answer for problem in problems]


def test_epochs_are_permutations_and_differ(random):
    stream = PromptStream(SOURCE, int(random.integers(2**32)))
    epochs = [_answers(stream.take(11)) for _ in range(20)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_ids_are_positions():
    stream = PromptStream(SOURCE, 0)
    problems = stream.take(5) + stream.take(0) + stream.take(20)
    assert [problem.id for problem in problems] == list(range(25))
    assert all(type(problem.id) is int for problem in problems)
    assert all(problem.prompt == f"q{problem.answer}" for problem in problems)


def test_seeds_and_pieces(random):
    seed = int(random.integers(2**32))
    whole = _answers(PromptStream(SOURCE, seed).take(60))
    stream, pieces = PromptStream(SOURCE, seed), []
    while len(pieces) < 60:
        size = int(random.integers(1, 9))
        pieces += _answers(stream.take(min(size, 60 - len(pieces))))
    assert pieces == whole
    assert _answers(PromptStream(SOURCE, seed ^ 1).take(60)) != whole
    kept = PromptStream(SOURCE, seed, shuffle=False).take(25)
    assert _answers(kept) == [i % 11 for i in range(25)]


def test_restores_exactly(random):
    seed, position = int(random.integers(2**32)), int(random.integers(10**9))
    stream = PromptStream(SOURCE, seed)
    stream.restore({**stream.state(), "position": position})
    state = json.loads(json.dumps(stream.state()))
    ahead = stream.take(30)
    other = PromptStream(SOURCE, seed)
    other.take(3)
    other.restore(state)
    assert other.take(30) == ahead
    assert other.state() == stream.state()


@pytest.mark.parametrize(
    ("stream", "field"),
    [
        (PromptStream(SOURCE, 2), "seed"),
        (PromptStream(SOURCE[:5], 1), "size"),
        (PromptStream(SOURCE, 1, shuffle=False), "shuffle"),
    ],
)
def test_refuses_the_state_of_another_stream(stream, field):
    with pytest.raises(ValueError, match=f"^{field}="):
        stream.restore(PromptStream(SOURCE, 1).state())


def test_endless_sources_are_shuffled_without_being_made():
    stream = PromptStream(tasks.get("arithmetic").train, 5)
    first = stream.take(20)
    assert len({problem.prompt for problem in first}) > 10
    with pytest.raises(ValueError, match="has 0 problems"):
        PromptStream([], 0)


def test_subset():
    subset = Subset(SOURCE, [7, 3])
    assert _answers(subset) == [7, 3] and len(subset) == 2


def test_encodes_with_padding_on_the_right():
    problems = [Problem("ab", 0, id=7), Problem("abcd", 0, id=2**32 - 1)]
    tokens, lengths, ids = encode_prompts(problems, tasks.tokenizers.get("byte"), 6)
    np.testing.assert_array_equal(
        tokens, [[97, 98, 0, 0, 0, 0], [97, 98, 99, 100, 0, 0]]
    )
    np.testing.assert_array_equal(lengths, [2, 4])
    np.testing.assert_array_equal(ids, [7, 2**32 - 1])
    assert (tokens.dtype, lengths.dtype, ids.dtype) == (np.int32, np.int32, np.uint32)


def test_prompts_that_do_not_fit_are_refused():
    tokenizer = tasks.tokenizers.get("byte")
    with pytest.raises(ValueError, match=r"max_prompt_length=3: .*problem 5 has 4 tok"):
        encode_prompts([Problem("abcd", 0, id=5)], tokenizer, 3)
    with pytest.raises(ValueError, match="it is empty"):
        encode_prompts([Problem("", 0)], tokenizer, 3)
