"""The interface of tasks: problems, and a verifier from text to reward."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Problem:
    """One prompt and what its verifier needs.

    It must pickle, because verifiers may run in other processes.
    """

    prompt: str
    answer: Any
    id: int = 0  # position in the source or the stream it was drawn from
    completion: str | None = None  # a reference completion, for the warm start
    info: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verifier's result for one completion."""

    reward: float
    ok: bool = True  # False: no verdict (a crash, a time-out); the sample is masked
    note: str = ""  # why there is no verdict; the log counts equal notes


class Task(Protocol):
    """The interface of tasks: problems to train and to test on, and their verifier.

    Any object with these attributes is a task. If `verify` raises, takes too long or
    kills its process, `verify_all` masks the sample. A task must pickle if it is to run
    in verifier processes.
    """

    train: Sequence[Problem]  # indexed at random; may be made on demand
    test: Sequence[Problem]  # shares no problem with `train`

    def verify(self, problem: Problem, completion: str) -> Verdict | float:
        """Judge one completion. The result may depend on the arguments only.

        Returning a plain number is the same as returning `Verdict(number)`.
        """
        ...
