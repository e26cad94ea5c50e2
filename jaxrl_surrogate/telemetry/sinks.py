"""Where the metrics of a run go: a seam with one small class for each place.

A sink is made when a run begins or goes on, with the run directory and the step that
it goes on after (0 at the start); `assembly.metric_sinks` has the list. The run log
calls it once a step. A sink that raises is reported once and used no more: what watches
a run does not stop it.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from jaxrl_surrogate.storage.json_lines import append_row


class MetricSink(Protocol):
    """A place that is given the metrics of each step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step; a step may come again with more of them.

        Args:
          step: counted from 1; 0 has the evaluation before the first.
          values: by name; finite, infinite or NaN.
        """

    def close(self) -> None:
        """Write what is left."""


OpenSink = Callable[[Path, int], MetricSink]  # of the run directory and a step


class JSONLSink:
    """A file with one JSON object a step; what is not a finite number is null.

    The run log keeps metrics.jsonl and warm_start.jsonl with it: they are its record,
    which readers and a resumed run rely on, so a failure to write them stops the run.
    """

    def __init__(self, path: Path):
        """Append to a file, which is made with its first row."""
        self._path = path

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row."""
        append_row(self._path, {"step": step, **values})

    def close(self) -> None:
        """Nothing is held between rows."""


class TensorBoardSink:
    """TensorBoard events in tensorboard/ of the run directory."""

    def __init__(self, directory: Path, step: int):
        """Open a file of events that hides what was written after `step`.

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
            # Its own names count seconds: a run begun again at once would overwrite.
            filename_suffix=f".{step}",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric; a gap where it is not finite."""
        for name, value in values.items():
            # The writer would print a warning for each that is not.
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
