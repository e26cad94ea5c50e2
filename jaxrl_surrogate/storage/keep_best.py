"""Keep the checkpoints that are best by the metric stored with them."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from orbax.checkpoint import checkpoint_managers


@dataclasses.dataclass
class KeepBest(checkpoint_managers.PreservationPolicy):
    """Keeps the checkpoints with the best metrics; of equal ones it keeps the newer.

    The metric is read from the record of a step; a step whose metric is missing, not
    finite or unreadable is never among the best. Orbax's own `BestN` chooses the same
    checkpoints, but only if Orbax also writes the metrics into its own file. If one
    such file is damaged, the run cannot be opened at all (JSONDecodeError from the
    manager, orbax-checkpoint 0.12).
    """

    directory: Path
    number: int
    lowest_is_best: bool = False
    _known: dict[int, float | None] = dataclasses.field(default_factory=dict)

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> list[bool]:
        """Return for each checkpoint whether it is one of the best."""
        sign = -1 if self.lowest_is_best else 1
        scored = [
            (sign * metric, checkpoint.step)
            for checkpoint in checkpoints
            if (metric := self._metric(checkpoint.step)) is not None
        ]
        best = {step for _, step in sorted(scored)[-self.number :]}
        return [checkpoint.step in best for checkpoint in checkpoints]

    def _metric(self, step: int) -> float | None:
        """Return the metric in a step's record, or None if it has no usable one."""
        path = self.directory / str(step) / "meta" / "metadata"
        if step not in self._known and path.is_file():
            try:
                metric = json.loads(path.read_text(encoding="utf-8"))["metric"]
                usable = isinstance(metric, (int, float)) and math.isfinite(metric)
            except (OSError, ValueError, KeyError, TypeError):
                usable = False
            self._known[step] = metric if usable else None
        return self._known.get(step)
