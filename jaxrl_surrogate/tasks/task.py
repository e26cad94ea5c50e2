"""What a task is: problems, and a verifier from text to reward. Host only."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Problem:
    """One prompt and what its verifier needs. Must pickle: verifiers run elsewhere."""

    prompt: str
    answer: Any
    id: int = 0  # position in the source or the stream it was drawn from
    completion: str | None = None  # a reference, for the warm start
    info: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of one completion."""

    reward: float
    ok: bool = True  # False: no verdict (a crash, a time-out); the sample is masked
    note: str = ""  # why there is no verdict; counted in the log


class Task(Protocol):
    """Problems to train and to test on, and their verifier.

    Anything of this form serves: `verify` may raise, take long or die, and
    `verify_all` turns that into a masked sample. Must pickle for verifier processes.
    """

    train: Sequence[Problem]  # indexed at random; may be made on demand
    test: Sequence[Problem]  # shares no problem with `train`

    def verify(self, problem: Problem, completion: str) -> Verdict | float:
        """Judge one completion. Must not depend on anything but its arguments.

        A plain number is a reward, as `Verdict(number)`.
        """
        ...
