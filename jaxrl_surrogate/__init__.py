"""Reinforcement learning with verifiable rewards as surrogate-reward maximisation."""

from typing import Any

__all__ = ["__version__", "objectives"]


def __getattr__(name: str) -> Any:
    # Made when it is used: JAX takes a second to import, and `__main__` comes first.
    if name == "objectives":
        import jaxrl_surrogate.objectives

        return jaxrl_surrogate.objectives
    if name == "__version__":
        from importlib import metadata

        return metadata.version("jaxrl_surrogate")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
