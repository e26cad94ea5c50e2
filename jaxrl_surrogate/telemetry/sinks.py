"""Metric sinks: classes that receive the metrics of each step of a run.

A sink is made when a run begins or resumes. It is given the run directory and the last
finished step (0 at the start); `assembly.metric_sinks` has the list. The run log calls
it once per step. If a sink raises, the error is reported once, the sink is not used any
more, and the run goes on.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from jaxrl_surrogate.storage.json_lines import append_row


class MetricSink(Protocol):
    """Receives the metrics of each step, for example to write or show them."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Receive the metrics of a step.

        A step may be logged again, with all its metrics and further ones.

        Args:
          step: counted from 1; step 0 has the evaluation before training.
          values: metrics by name; finite, infinite or NaN.
        """

    def close(self) -> None:
        """Write buffered metrics and close files."""


OpenSink = Callable[[Path, int], MetricSink]  # from run directory and last step


class JSONLSink:
    """Writes a file with one JSON object per step; values that are not finite are null.

    The run log uses it for metrics.jsonl and warm_start.jsonl. Readers and resumed runs
    rely on these files, so a failure to write them stops the run.
    """

    def __init__(self, path: Path):
        """Append to a file, which is created with its first row."""
        self._path = path

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row to the file."""
        append_row(self._path, {"step": step, **values})

    def close(self) -> None:
        """Do nothing: no file is open between rows."""


class TensorBoardSink:
    """Writes TensorBoard events to tensorboard/ in the run directory."""

    def __init__(self, directory: Path, step: int):
        """Open an event file that hides events written before for steps after `step`.

        Raises:
          ImportError: tensorboardX is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboardX is not installed; in the checkout: "
                "pip install -e '.[tensorboard]'; or give --log.tensorboard=false"
            ) from error
        self._writer = SummaryWriter(
            str(directory / "tensorboard"),
            purge_step=step + 1 if step else 0,
            # The writer's file names have a resolution of seconds. The suffix keeps a
            # run that resumes within a second from overwriting a file.
            filename_suffix=f".{step}",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric whose value is finite."""
        for name, value in values.items():
            # The writer would print a warning for each value that is not finite.
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
