"""`jaxrl plan CONFIG --topology v5p:4x4x4`: memory and time of a step, with no pod."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxrl_surrogate import assembly, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.plan import Plan, make_plan
from jaxrl_surrogate.lab.plan import text as plan_text
from jaxrl_surrogate.lab.plan import topology as topologies
from jaxrl_surrogate.lab.plan.drawing import drawings
from jaxrl_surrogate.lab.plan.search import search


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Plan a step and return the exit status: 0 if it fits in memory, else 1.

    Args:
      args: parsed arguments of `jaxrl plan`.
      overrides: fields of the config, `--section.field=value`.

    Raises:
      FieldErrors: the topology is unknown, or the config or its mesh does not fit it.
    """
    if topologies.names_a_pod(args.topology):
        _stay_off_devices()
    try:
        topology = topologies.get(args.topology)
    except FieldError as error:
        raise error.at("--topology") from error
    path = Path(args.config)
    config = settings.load(
        TrainConfig, path, overrides, defaults={"name": path.stem or "run"}
    )
    platform = topology.devices[0].platform
    job = assembly.build_job(config, platform)
    job.make_mesh(topology.devices)
    if args.shardings:
        print(plan_text.shardings_text(job, topology.devices))
        return 0
    if args.draw:
        print(drawings(job, topology.devices, args.draw))
        return 0
    if args.search:
        return _search(job, topology, args)
    plan = make_plan(job, topology, config.name, _say)
    remedies = []
    if not plan.fits and args.remedies:
        remedies = search(
            job,
            topology,
            args.remedies,
            until_one_fits=True,
            on_candidate=lambda c: _say(f"a remedy: {c.fields}"),
        )
    if args.json:
        print(json.dumps(_report(plan, remedies), indent=2))
    else:
        print(plan_text.plan_text(plan))
        _advise(plan, remedies)
    return 0 if plan.fits else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command; others are fields of the config."""
    parser.epilog = "Other arguments are fields of the config: --section.field=value."
    parser.add_argument("config", metavar="CONFIG", help="a YAML file")
    parser.add_argument(
        "--topology",
        default="local",
        help=f"{topologies.EXAMPLES}; or local, cpu, cuda, tpu",
    )
    parser.add_argument(
        "--shardings",
        action="store_true",
        help="print how every array is split; compiles nothing",
    )
    parser.add_argument(
        "--draw",
        metavar="NAME",
        help="draw how the arrays with this in their names are split",
    )
    parser.add_argument(
        "--search",
        nargs="?",
        const=3,
        default=0,
        type=int,
        metavar="N",
        help="rank other meshes and slices, compile the best N (default 3)",
    )
    parser.add_argument(
        "--remedies",
        default=3,
        type=int,
        metavar="N",
        help="compile at most N other settings where the config does not fit",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _search(job, topology, args) -> int:
    tried = search(
        job, topology, args.search, on_candidate=lambda c: _say(str(c.fields))
    )
    if not tried:
        raise FieldError(
            "--topology",
            args.topology,
            "rollout.prompts_per_step to be a multiple of more of the chips",
            problem="no mesh divides the model and the batch",
        )
    if args.json:
        print(
            json.dumps(
                [{"set": t.candidate.fields, "plan": t.plan.to_dict()} for t in tried],
                indent=2,
            )
        )
    else:
        print(plan_text.search_text(tried))
    return 0 if tried[0].plan.fits else 1


def _advise(plan: Plan, remedies) -> None:
    if plan.fits:
        return
    best = next((tried for tried in remedies if tried.plan.fits), None)
    if best is not None:
        print(f"this fits, it was compiled: {plan_text.argv_of(best)}")
        print(plan_text.search_text(remedies))
    elif remedies:
        print("none of these fits either; take a larger slice, or shorter completions")
        print(plan_text.search_text(remedies))


def _report(plan: Plan, remedies) -> dict:
    return plan.to_dict() | {
        "remedies": [
            {
                "set": tried.candidate.fields,
                "fits": tried.plan.fits,
                "plan": tried.plan.to_dict(),
            }
            for tried in remedies
        ]
    }


def _say(what: str) -> None:
    """Print progress to standard error; standard output has only the report."""
    print(f"jaxrl plan: compiling {what} ...", file=sys.stderr, flush=True)


def _stay_off_devices() -> None:
    """Make JAX use the CPU, because planning for a pod computes almost nothing."""
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")
