"""Formats the config's part of `jaxrl train --help` and `--help=SECTION`."""

from jaxrl_surrogate import objectives, settings, tasks
from jaxrl_surrogate.config import TrainConfig


def lines(section: str = "") -> str:
    """Return one line for each section, or the fields and known names of one section.

    Raises:
      FieldError: there is no such section; the error suggests the nearest.
    """
    out = [settings.help_text(TrainConfig, section)]
    if not section:
        out.append("\n--help=SECTION lists the fields of a section.")
    if section == "task":
        for name in tasks.names():
            out.append(f"  --task.name={name}")
            for option, (default, text) in tasks.task_options(name).items():
                out.append(f"    --task.options.{option}={default!r}  {text}")
    if section == "objective":
        advantages, surrogates = objectives.advantages, objectives.surrogates
        out.append(f"  --objective.name: {', '.join(advantages.names())}")
        out.append(f"    or a surrogate: {', '.join(surrogates.names())}")
    return "\n".join(out)
