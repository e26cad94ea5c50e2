"""Terminal output of a run: lines with metrics, and a progress bar."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from jaxrl_surrogate import terminal

_SHOWN = ("loss", "grad_norm", "mixed_group_fraction", "entropy", "length")


class Screen:
    """The metric sink (`sinks.MetricSink`) that prints to the terminal."""

    def __init__(self, console: Console, total_steps: int, every: int = 1):
        """Print to a console, with a line of metrics after each `every` steps."""
        self._console, self._total, self._every = console, total_steps, every
        self._progress: Progress | None = None

    def start(self) -> None:
        """Start the progress bar if the console is a terminal."""
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[latest]}", markup=False),
                console=self._console,
            )
            self._progress.start()
            self._bar = self._progress.add_task(
                "train", total=self._total, latest="starting"
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show the metrics of a step."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, latest=_brief(values))
        if step % self._every == 0 or step in (1, self._total):
            self.say(_line(step, self._total, values))

    def close(self) -> None:
        """Stop the progress bar."""
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False)

    def at(self, place: str) -> None:
        """Show text beside the progress bar, such as the progress of the warm start."""
        if self._progress is not None:
            self._progress.update(self._bar, latest=place)

    def completions(self, step: int, rows: list[dict]) -> None:
        """Show sampled completions with their rewards, on a terminal."""
        if self._progress is None:
            return
        table = terminal.table("prompt", "completion", "reward", title=f"step {step}")
        for row in rows:
            shown = f"{row['reward']:g}" if row["verified"] else "none"
            # A table parses str cells as markup, and a model may write [/b]; Text is
            # shown as it is.
            cells = (repr(row["prompt"]), repr(row["completion"]), shown)
            table.add_row(*map(Text, cells))
        terminal.print_table(self._console, table)


def _brief(values: Mapping[str, float]) -> str:
    """Return the few metrics that are shown beside the progress bar."""
    parts = [f"reward {values['reward']:.3f}"] if "reward" in values else []
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:.0f} tok/s")
    if "seconds" in values:
        parts.append(f"{values['seconds']:.2f} s")
    return "  ".join(parts)


def _line(step: int, total: int, values: Mapping[str, float]) -> str:
    parts = [f"step {step}/{total}"]
    parts += [
        f"{name} {value:.3f}"
        for name, value in values.items()
        if name == "reward" or name.startswith("pass@")
    ]
    parts += [f"{name} {values[name]:.3g}" for name in _SHOWN if name in values]
    parts += [
        f"{name} {value:.{0 if name == 'eval/problems' else 3}f}"
        for name, value in values.items()
        if name.startswith("eval/") and not name.endswith(("_low", "_high"))
    ]
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:.0f} tok/s")
    if "seconds" in values:
        parts.append(f"{values['seconds']:.2f} s")
    return "  ".join(parts)
