"""Builds a run from its config; no other package imports both config and layers."""

from jaxrl_surrogate.assembly.directory import (
    check_continuation,
    check_directory,
    config_changes,
    open_directory,
    run_directory,
    store_config,
)
from jaxrl_surrogate.assembly.model import build_model, build_shape
from jaxrl_surrogate.assembly.objective import build_objective
from jaxrl_surrogate.assembly.objective_notes import objective_notes
from jaxrl_surrogate.assembly.problems import few_problems
from jaxrl_surrogate.assembly.programs import build_job
from jaxrl_surrogate.assembly.run import build_run
from jaxrl_surrogate.assembly.sinks import metric_sinks
from jaxrl_surrogate.assembly.stored_config import load_stored
from jaxrl_surrogate.assembly.tokenizer import build_tokenizer
from jaxrl_surrogate.assembly.user_code import user_code

__all__ = [
    "build_job",
    "build_model",
    "build_objective",
    "build_run",
    "build_shape",
    "build_tokenizer",
    "check_continuation",
    "check_directory",
    "config_changes",
    "few_problems",
    "load_stored",
    "metric_sinks",
    "objective_notes",
    "open_directory",
    "run_directory",
    "store_config",
    "user_code",
]
