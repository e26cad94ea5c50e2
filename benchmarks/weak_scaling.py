"""Weak scaling by plan: one prompt a chip, from 16 to 1,024 chips.

    python -m benchmarks.weak_scaling --out docs/weak_scaling.md \\
      --figure docs/figures/weak_scaling.svg

Each size is compiled by XLA's TPU compiler (extra `tpu`) for a pod that is not here.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from jaxrl_surrogate.lab.figures import Curve, Panel, draw

CONFIG = "configs/pods/qwen3_8b_v5p64.yaml"
# Chips to topology and sizes of data, fsdp, tensor.
SIZES = {
    16: ("v5p:2x2x4", (1, 4, 4)),
    64: ("v5p:4x4x4", (1, 16, 4)),
    256: ("v5p:4x8x8", (1, 64, 4)),
    1024: ("v5p:8x8x16", (4, 64, 4)),
}
HEAD = """\
# Weak scaling by plan

Made by `python -m benchmarks.weak_scaling --out docs/weak_scaling.md --figure
docs/figures/weak_scaling.svg`: Qwen3-8B on v5p, one prompt with 16 completions of 2,048
tokens a chip, a quarter of the batch in a slice of accumulation. Compiled, not
measured; times are a roofline ([what it assumes](plan.md)).

"""
COLUMNS = (
    "chips", "topology", "data x fsdp x tensor", "rollout s", "update s", "step s",
    "efficiency", "network share", "HBM GiB of a chip", "mfu", "compile s",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Compile all sizes, print and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--figure", type=Path, help="draw it here")
    parser.add_argument("--chips", type=int, nargs="*", default=list(SIZES))
    args = parser.parse_args(arguments)
    rows, plans = [], {}
    for chips in args.chips:
        found = plans[chips] = _plan(chips)
        first = plans[args.chips[0]]["step_seconds"]
        rows.append(_row(_cells(chips, found, first)))
        print(rows[-1], flush=True)
    text = HEAD + "\n".join([_row(COLUMNS), _row("---" for _ in COLUMNS), *rows]) + "\n"
    if args.figure:
        _draw(plans, args.figure)
        text += f"\n![weak scaling](figures/{args.figure.name})\n"
    if args.out:
        args.out.write_text(text)
    return 0


def _plan(chips):
    topology, sizes = SIZES[chips]
    axes = zip(("data", "fsdp", "tensor"), sizes, strict=True)
    micro = max(sizes[0] * sizes[1], chips // 4)
    command = [
        sys.executable, "-m", "jaxrl_surrogate", "plan", CONFIG, "--topology", topology,
        "--json", "--remedies=0", f"--rollout.prompts_per_step={chips}",
        f"--train.microbatch_prompts={micro}",
        *(f"--mesh.{axis}={size}" for axis, size in axes),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _cells(chips, found, first):
    topology, sizes = SIZES[chips]
    seconds = [found["phases"][p]["seconds"] for p in ("rollout", "update")]
    return [
        str(chips), topology, " x ".join(map(str, sizes)),
        *(f"{s:.2f}" for s in (*seconds, found["step_seconds"])),
        f"{first / found['step_seconds']:.0%}", f"{found['network_share']:.0%}",
        f"{found['peak_bytes'] / 2**30:.2f}", f"{found['mfu']:.1%}",
        f"{found['compile_seconds']:.0f}",
    ]  # fmt: skip


def _draw(plans, path):
    chips = np.array(list(plans))

    def curve(label, value):
        return Curve(chips, np.array([value(p) for p in plans.values()]), label, "line")

    def seconds(phase):
        return lambda p: p["phases"][phase]["seconds"]

    panels = [
        Panel(
            [
                curve("step", lambda p: p["step_seconds"]),
                curve("rollout", seconds("rollout")),
                curve("update", seconds("update")),
            ],
            "estimated time", "chips", "seconds", log_x=True,
        ),
        Panel(
            [curve("collectives", lambda p: 100 * p["network_share"])],
            "share of the step", "chips", "per cent", log_x=True, y_range=(0, 100),
        ),
        Panel(
            [curve("peak of both phases", lambda p: p["peak_bytes"] / 2**30)],
            "HBM of a chip", "chips", "GiB", log_x=True, y_range=(0, 96),
        ),
    ]  # fmt: skip
    draw(panels, path)


def _row(cells):
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
