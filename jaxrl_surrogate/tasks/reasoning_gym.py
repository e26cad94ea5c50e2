"""Any dataset of the library reasoning-gym, by name: `reasoning_gym:DATASET`."""

from collections.abc import Mapping

from jaxrl_surrogate.tasks.task import Problem, Verdict

_PREFIX = "reasoning_gym:"


class ReasoningGym:
    """A generated dataset and the library's own scorer."""

    def __init__(
        self,
        dataset: str,
        *,
        size: int = 10_000,
        num_test: int = 512,
        threshold: float = 1.0,
        **config,
    ):
        """Generate a dataset.

        Args:
          dataset: a name the library knows.
          size: training problems.
          num_test: test problems, generated from another seed.
          threshold: scores from here on are reward 1, others 0.
          **config: settings of the dataset.

        Raises:
          ValueError: the library is missing, or refuses name or settings.
        """
        try:
            import reasoning_gym
        except ImportError:
            raise ValueError(
                f"task={_PREFIX + dataset!r}: needs the library reasoning-gym; "
                "pip install 'jaxrl_surrogate[tasks]'"
            ) from None
        try:
            made = [
                reasoning_gym.create_dataset(dataset, size=count, seed=seed, **config)
                for count, seed in ((size, 0), (num_test, 1))
            ]
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"task={_PREFIX + dataset!r}: {error}") from error
        self.name, self._threshold = _PREFIX + dataset, threshold
        self._scorer = made[0]
        self.train, self.test = (_Entries(entries) for entries in made)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """The library's score of the stripped completion, thresholded."""
        score = self._scorer.score_answer(completion.strip(), problem.info["entry"])
        return Verdict(float(score >= self._threshold))


class _Entries:
    """Entries of a dataset as problems."""

    def __init__(self, entries):
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Problem:
        entry: Mapping = self._entries[index]
        answer = None if entry["answer"] is None else str(entry["answer"])
        return Problem(
            f"{entry['question']}\nAnswer: ", answer, index, answer, {"entry": entry}
        )
