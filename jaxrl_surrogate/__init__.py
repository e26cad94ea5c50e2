"""Reinforcement learning with verifiable rewards as surrogate-reward maximisation."""

from importlib import metadata

from jaxrl_surrogate import objectives

__version__ = metadata.version("jaxrl_surrogate")

__all__ = ["__version__", "objectives"]
