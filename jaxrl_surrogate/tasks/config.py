"""Settings of the task and of its verification."""

import dataclasses
from typing import Annotated

from jaxrl_surrogate.errors import FieldError, at_least
from jaxrl_surrogate.resolve import absolute


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The task, its reward, its tokenizer and the limits of its verifier."""

    name: Annotated[
        str, "a built-in task, reasoning_gym:DATASET or your own my.py:MyTask", "kept"
    ] = "arithmetic"
    options: Annotated[dict[str, object], "options of the task", "kept"] = (
        dataclasses.field(default_factory=dict)
    )
    reward: Annotated[
        str | None,
        "your own my.py:my_reward of (completion, answer) in place of the task's "
        "verifier: a number, or None to mask the sample",
        "kept",
    ] = None
    tokenizer: Annotated[str, "ascii, byte, bpe:SIZE or a tokenizer.json", "kept"] = (
        "ascii"
    )
    verify_workers: Annotated[
        int,
        "number of verifier processes; 0: the trainer's process verifies",
        "operational",
    ] = 0
    verify_timeout_s: Annotated[
        float,
        "seconds that a verifier process may take for a completion",
        "operational",
    ] = 10.0
    verify_memory_mb: Annotated[
        int, "MiB that a worker may use beyond what it starts with", "operational"
    ] = 2048
    verify_max_failures: Annotated[
        float,
        "share of a step's or an evaluation's completions without a verdict (a crash, "
        "a time-out) above which the run stops; below 1, for none at all always does",
        "operational",
    ] = 0.5

    def __post_init__(self):
        # Paths are absolute: a run may be continued from another working directory.
        object.__setattr__(self, "name", absolute(self.name))
        if self.reward is not None:
            object.__setattr__(self, "reward", absolute(self.reward))
        at_least(self, verify_workers=0, verify_memory_mb=16)
        if not 0 <= self.verify_max_failures < 1:
            raise FieldError(
                "verify_max_failures",
                self.verify_max_failures,
                "0 or more and less than 1, a share of completions",
            )
        if not self.verify_timeout_s > 0:
            raise FieldError("verify_timeout_s", self.verify_timeout_s, "more than 0")
