"""The `jaxrl` program: parses the command line and runs a command.

The module of a command is imported only when the command runs, so that `jaxrl --help`
starts at once, without JAX.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jaxrl_surrogate
from jaxrl_surrogate import output
from jaxrl_surrogate.errors import FieldError, FieldErrors, nearest_or_all

if TYPE_CHECKING:
    from jaxrl_surrogate.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class _Command:
    module: str  # in commands/
    help: str
    function: str = ""  # function of a config to run; "": run(args, overrides)
    writes: bool = False  # whether it writes into a run directory
    overrides: bool = False  # takes --section.field=value beside its own arguments
    aliases: tuple[str, ...] = ()


_COMMANDS = {
    "train": _Command(
        "training",
        "warm start, then reinforcement learning; resumes a run directory",
        "train",
        writes=True,
    ),
    "sft": _Command("training", "the warm start alone", "sft", writes=True),
    "eval": _Command(
        "evaluation", "evaluate the newest parameters of a run", "evaluate"
    ),
    "sample": _Command(
        "evaluation", "print completions of test prompts by them", "sample"
    ),
    "plan": _Command(
        "plan",
        "memory, time and collectives of a step on a pod, compiled without one",
        overrides=True,
    ),
    "reproduce": _Command(
        "reproduce",
        "execute steps of a run again from a stored state; names what came out "
        "otherwise",
        overrides=True,
        aliases=("verify",),
    ),
    "runs": _Command(
        "runs", "the runs in a folder, their state and last numbers; or two compared"
    ),
    "objective": _Command(
        "objective", "what a rule for weights optimises, or what a run really did"
    ),
}
_ABOUT = "Train with verifiable rewards, and say what a rule for weights optimises."
_BY_NAME = {
    name: command
    for first, command in _COMMANDS.items()
    for name in (first, *command.aliases)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Args:
      arguments: the command line without the program's name; None: `sys.argv[1:]`.

    Returns:
      0 on success. 1 for a negative result of a command. 2 for errors in the command or
      config, printed one a line. 3 if stored data are damaged or of another version,
      the disk is full, updates are not finite, or the sampling server or verifier gives
      no usable results. 130 if stopped by a signal; the run can be resumed. 141 if the
      reader of standard output has closed it.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # Training continues if standard output is closed; a report has no use then.
    command = _BY_NAME.get(argv[0]) if argv else None
    with output.closable(go_on=bool(command and command.writes)), _hosts_leave():
        try:
            args, overrides = parse(argv)
        except FieldErrors as error:
            return _refused(error)
        except SystemExit as done:  # help was printed
            return done.code or 0
        status = _said(args, overrides)
    if status not in (0, 130):  # hosts finish and stop together, but one can fail alone
        _hosts().leave(status)
    return status


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse argv into the arguments of a command and the overrides of config fields.

    Returns:
      The parsed arguments, and the `--section.field=value` arguments in their order.

    Raises:
      FieldErrors: a command or argument is unknown; the errors suggest the nearest.
      SystemExit: the help or version was printed.
    """
    name = next((word for word in argv if not word.startswith("-")), None)
    if name is not None and name not in _BY_NAME and argv[0] == name:
        hint = nearest_or_all(name, _BY_NAME)
        raise FieldError(name, problem="unknown command", **hint)
    parser = _Parser("jaxrl", description=_ABOUT, allow_abbrev=False)
    version = f"jaxrl_surrogate {jaxrl_surrogate.__version__}"
    parser.add_argument("--version", action="version", version=version)
    asked = parser
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for first, command in _COMMANDS.items():
        part = commands.add_parser(
            first,
            aliases=command.aliases,
            help=command.help,
            description=command.help,
            allow_abbrev=False,
            add_help=not command.function,
        )
        if _BY_NAME.get(name) is not command:
            continue
        if command.function:
            _add_config(part)
        else:
            _module(command).add_arguments(part)
        asked = part
    args, rest = parser.parse_known_args(argv)
    if args.command is None and not rest:
        parser.parse_args(["--help"])
    command = _BY_NAME.get(args.command)
    if rest and not (command and (command.function or command.overrides)):
        options = [word for action in asked._actions for word in action.option_strings]
        raise FieldErrors(
            FieldError(
                word, problem="unknown argument", **nearest_or_all(word, options)
            )
            for word in rest
        )
    return args, rest


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises `FieldError` instead of ending the program."""

    def error(self, message: str) -> None:
        """Raise the message as an error.

        Raises:
          FieldError: always.
        """
        raise FieldError(self.prog, problem=message)


class _SectionHelp(argparse.Action):
    """The action of `--help` and `--help=SECTION`."""

    def __call__(self, parser, namespace, section, option_string=None):
        from jaxrl_surrogate.commands import section_help

        text = section_help.lines(section or "")
        print(text if section else f"{parser.format_help()}\n{text}")
        parser.exit()


def _add_config(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that take a config."""
    parser.usage = f"{parser.prog} CONFIG [--section.field=value ...]"
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the directory of a run"
    )
    parser.add_argument(
        "-h",
        "--help",
        nargs="?",
        metavar="SECTION",
        action=_SectionHelp,
        help="print this help, or the fields of one section, such as --help=objective",
    )


def _said(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Run a command, print errors that the user can fix, and return the exit status."""
    from jaxrl_surrogate.rollout import SamplerError
    from jaxrl_surrogate.storage import stops

    try:
        return run(args, overrides)
    except (
        stops.DamagedCheckpoint,
        stops.NoRoom,
        stops.NotFinite,
        stops.OtherFormat,
        stops.VerifierError,
        SamplerError,
    ) as error:
        print(f"jaxrl: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        if stops.no_room(error) is None:
            raise
        print(f"jaxrl: {error}", file=sys.stderr)
        return 3
    except FieldErrors as error:  # any other exception is a bug and keeps its traceback
        return _refused(error)
    except KeyboardInterrupt:
        print("jaxrl: stopped; the last checkpoint is intact", file=sys.stderr)
        return 130


def _refused(error: FieldErrors) -> int:
    print(f"jaxrl: {error}".replace("\n", "\njaxrl: "), file=sys.stderr)
    return 2


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Run a command with the results of `parse` and return its exit status.

    Raises:
      FieldErrors: the arguments or the config have errors.
    """
    from jaxrl_surrogate.parallel import enough_host_threads

    enough_host_threads()
    command = _BY_NAME[args.command]
    if not command.function:
        return _module(command).run(args, overrides)
    hosts = _hosts()
    wanted, rest = hosts.take(overrides)
    config = load_config(Path(args.config), rest)
    hosts.start(wanted)
    function = getattr(_module(command), command.function)
    if not command.writes:
        return function(config)
    from jaxrl_surrogate import assembly
    from jaxrl_surrogate.storage.stops import room_in

    with room_in(assembly.run_directory(config)):
        return function(config)


def _module(command: _Command):
    return importlib.import_module(f"jaxrl_surrogate.commands.{command.module}")


def _hosts():
    from jaxrl_surrogate.parallel import hosts

    return hosts


@contextlib.contextmanager
def _hosts_leave() -> Iterator[None]:
    """Return a context that tells the other hosts when this one fails."""
    try:
        yield
    except Exception as error:
        _hosts().leave(1, error)
        raise


def load_config(path: Path, overrides: Sequence[str]) -> "TrainConfig":
    """Load the config of a YAML file or of a run directory.

    Args:
      path: the file, or a run directory, whose `run_dir` is then this path.
      overrides: changes of the config, `--section.field=value`.

    Raises:
      FieldErrors: the file does not exist or has errors, one line for each.
    """
    from jaxrl_surrogate import assembly, settings
    from jaxrl_surrogate.config import TrainConfig

    if not path.is_dir():
        if not path.exists():
            problem = "no such file or directory"
            raise FieldError(str(path), problem=problem, remedy=_near(path))
        return settings.load(
            TrainConfig, path, overrides, defaults={"name": path.stem or "run"}
        )
    if not (path / "config.yaml").exists():
        raise FieldError(
            str(path),
            problem="has no config.yaml",
            expected="a YAML file or the directory of a run",
            remedy=_near(path / "*"),
        )
    # The run may have been moved since its config was stored.
    return assembly.load_stored(path, [f"--run_dir={path}", *overrides])


def _near(path: Path) -> str:
    """Suggest configs that may be meant, from the path's folder and configs/."""
    places = dict.fromkeys((path.parent, Path("configs")))
    configs = [str(file) for place in places for file in sorted(place.glob("*.yaml"))]
    stems = {Path(file).stem: file for file in reversed(configs)}
    near = difflib.get_close_matches(path.stem, stems, n=3)
    if near:
        return f"did you mean {' or '.join(stems[stem] for stem in near)}?"
    return f"configs here: {', '.join(configs)}" if configs else ""
