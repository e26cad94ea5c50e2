"""`jaxrl eval` and `jaxrl sample`: evaluate the newest parameters of a run."""

from rich.console import Console
from rich.table import Table

from jaxrl_surrogate import assembly, terminal
from jaxrl_surrogate.commands import samples
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.loop import loop


def evaluate(config: TrainConfig) -> int:
    """Print the scores of a run's newest parameters and return the exit status.

    Raises:
      FieldErrors: there is no such run, it has no checkpoint, or there is no test
        problem to evaluate on.
    """
    console = terminal.console()
    found = _evaluated(config, console)
    print_scores(found.scores(), console)
    for line in samples.without_verdict(found):
        console.print(line, highlight=False, markup=False)
    return 0


def sample(config: TrainConfig) -> int:
    """Print completions by a run's newest parameters and return the exit status.

    Raises:
      FieldErrors: as `evaluate`.
    """
    console = terminal.console()
    found = _evaluated(config, console)
    for line in samples.lines(found):
        console.print(line, highlight=False, markup=False)
    return 0


def comparison(before: dict[str, float], after: dict[str, float]) -> Table:
    """Return a table that compares two evaluations, with confidence intervals.

    Args:
      before: metrics of the evaluation before RL, by name such as "eval/pass@1".
      after: metrics of the evaluation after RL.
    """
    # The counts differ if the run was continued with other test problems.
    counts = [row.get("eval/problems") for row in (before, after)]
    shown = dict.fromkeys(f"{count:.0f}" for count in counts if count is not None)
    heading = f"{', then '.join(shown)} test problems"
    table = terminal.table(heading, "before RL", "after RL", "change")
    for name in before:
        if name.endswith(("_low", "_high", "/problems")) or name not in after:
            continue
        table.add_row(
            name.removeprefix("eval/"),
            _interval(before, name),
            _interval(after, name),
            f"{after[name] - before[name]:+.3f}",
        )
    return table


def _interval(scores: dict[str, float], name: str) -> str:
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    shown = f"{scores[name]:.3f}"
    return shown if low is None else f"{shown} [{low:.3f}, {high:.3f}]"


def print_scores(scores: dict[str, float], console: Console) -> None:
    """Print each score of an evaluation on a line, with its confidence interval."""
    console.print(f"{scores['eval/problems']:.0f} test problems", highlight=False)
    for name in scores:
        if not name.endswith(("_low", "_high", "/problems")):
            console.print(
                f"{name.removeprefix('eval/'):<8} {_interval(scores, name)}",
                highlight=False,
                markup=False,
            )


def _evaluated(config: TrainConfig, console: Console):
    """Evaluate the newest parameters of a run; changes nothing on disk."""
    if not config.eval.prompts:
        raise FieldError("eval.prompts", 0, "at least 1 to evaluate on")
    directory = assembly.check_directory(config)
    if not (directory / "checkpoints").is_dir():
        raise FieldError(
            "run_dir",
            str(directory),
            problem="holds no checkpoint",
            expected="a run that was started with `jaxrl train` or `jaxrl sft`",
        )
    run = assembly.build_run(config)

    def warn(what):
        console.print(f"warning: {what}", highlight=False, markup=False)

    if not run.eval_problems:
        raise FieldError(
            "eval.prompts",
            config.eval.prompts,
            problem="the task has no test problem to evaluate on",
        )
    for note in assembly.few_problems(config.eval.prompts, len(run.eval_problems)):
        console.print(note, highlight=False)
    params, step = loop.newest_params(run, warn)
    console.print(f"parameters after step {step}", highlight=False)
    return loop.run_evaluation(run, params, step)
