"""Settings of the logs and the terminal output of a run."""

import dataclasses
from typing import Annotated

from jaxrl_surrogate.errors import at_least


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What a run logs and prints, and how often."""

    every: Annotated[int, "steps between printed lines", "operational"] = 1
    tensorboard: Annotated[
        bool, "write TensorBoard events if installed", "operational"
    ] = True
    completions_every: Annotated[
        int, "steps between tables of samples; 0: none", "operational"
    ] = 10
    completions: Annotated[int, "rows of such a table", "operational"] = 4
    digests: Annotated[
        bool,
        "record digests of what steps computed and of stored states",
        "operational",
    ] = True
    digests_every: Annotated[
        int,
        "steps between further digests of the state; 0: where it is stored alone",
        "operational",
    ] = 0

    def __post_init__(self):
        at_least(self, every=1, completions_every=0, completions=0, digests_every=0)
