"""What the two registries of this room say about names and parameters they lack."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping


def nearest_name(kind: str, name: str, known: Collection[str]) -> str:
    """The message for an unknown name: the nearest known ones, then all of them."""
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{kind} {name!r} is unknown: {hint}known are {', '.join(known)}"


def check_parameters(
    make: Callable, name: str, params: Mapping, *, given: Collection[str] = ()
) -> None:
    """Refuse parameters that `make` does not take, and missing ones.

    Args:
      make: the function that the name stands for.
      name: for the message.
      params: the parameters to check, by name.
      given: parameters that the caller will add itself.

    Raises:
      ValueError: naming the parameter and the nearest one, or the missing one.
    """
    signature = inspect.signature(make).parameters
    takes = [parameter for parameter in signature if parameter not in given]
    for parameter in params:
        if parameter not in takes:
            if not takes:
                raise ValueError(f"{name}: takes no parameters, got {parameter!r}")
            raise ValueError(nearest_name(f"parameter of {name}", parameter, takes))
    for parameter in takes:
        required = signature[parameter].default is inspect.Parameter.empty
        if required and parameter not in params:
            raise ValueError(
                f"{name}: needs the parameter {parameter!r}, for example "
                f"{name}({parameter}=4)"
            )
