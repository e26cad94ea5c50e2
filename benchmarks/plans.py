"""What published models would cost on pods: plans of configs/pods as one table.

    python -m benchmarks.plans --out docs/plans.md

Every row is compiled by XLA's TPU compiler (extra `tpu`) on this machine, for a pod
that is not here: minutes each. Last comes one that does not fit, and what `jaxrl plan`
says would.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PODS = {"v5e256": "v5e:16x16", "v5p64": "v5p:4x4x4", "v6e64": "v6e:8x8"}
MODELS = ("qwen3_8b", "qwen3_32b", "qwen3_30b_a3b")
TOO_LARGE = ("qwen3_8b_v5e256", "--mesh.fsdp=64", "--mesh.tensor=4", "--mesh.data=1",
             "--train.microbatch_prompts=64", "--train.remat=none")  # fmt: skip
HEAD = """\
# Plans for pods

Made by `python -m benchmarks.plans --out docs/plans.md`, on a machine with two CPU
cores and no TPU. Group size 16, 64 prompts a step, prompts of up to 512 and completions
of up to 2,048 tokens, AdamW, float32 parameters and moments, bfloat16 activations.
Nothing here was measured on a TPU: memory is the compiler's own figure, times are a
roofline ([what it assumes](plan.md)). Compile times are of a machine that did other
work as well.

"""
COLUMNS = (
    "config", "chips", "mesh", "HBM GiB of a chip", "rollout GiB", "update GiB", "fits",
    "rollout s", "update s", "bound", "network share", "mfu", "compile s",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Compile all, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--configs", nargs="*", help="stems of configs/pods")
    args = parser.parse_args(arguments)
    names = args.configs or [f"{m}_{p}" for m in MODELS for p in PODS]
    lines = [_row(COLUMNS), _row("---" for _ in COLUMNS)]
    for name in names:
        lines.append(_row(_cells(name, plan(name, "--remedies=0"))))
        print(lines[-1], flush=True)
    text = HEAD + "\n".join(lines) + "\n"
    if not args.configs:
        text += _too_large()
    print(text)
    if args.out:
        args.out.write_text(text)
    return 0


def plan(name: str, *words: str) -> dict:
    """The plan of a config for the pod in its name."""
    topology = PODS[name.rpartition("_")[2]]
    command = [
        sys.executable, "-m", "jaxrl_surrogate", "plan", f"configs/pods/{name}.yaml",
        "--topology", topology, "--json", *words,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name}: jaxrl plan ended with {done.returncode}")
    return json.loads(done.stdout)


def _cells(name, found):
    phases = found["phases"]
    gib = [f"{phases[p]['peak_bytes'] / 2**30:.2f}" for p in ("rollout", "update")]
    mesh = " ".join(f"{axis} {n}" for axis, n in found["mesh"].items() if n > 1)
    cells = [name, str(found["chips"]), mesh]
    cells += [f"{found['chip']['usable_bytes'] / 2**30:.2f}", *gib]
    if not found["fits"]:
        return [*cells, "no", *["-"] * 5, f"{found['compile_seconds']:.0f}"]
    seconds = [f"{phases[p]['seconds']:.1f}" for p in ("rollout", "update")]
    bounds = ", ".join(phases[p]["bound"] for p in ("rollout", "update"))
    return [
        *cells, "yes", *seconds, bounds, f"{found['network_share']:.0%}",
        f"{found['mfu']:.1%}", f"{found['compile_seconds']:.0f}",
    ]  # fmt: skip


def _too_large():
    name, *words = TOO_LARGE
    found = plan(name, *words)
    lines = [
        "",
        "## Too large",
        "",
        f"    jaxrl plan configs/pods/{name}.yaml --topology {found['topology']} \\",
        f"      {' '.join(words)}",
        "",
    ]
    for phase, part in found["phases"].items():
        peak, usable = (part[k] / 2**30 for k in ("peak_bytes", "usable_bytes"))
        verdict = "fits" if part["fits"] else "does not fit"
        lines.append(f"- {phase}: {peak:.2f} of {usable:.2f} GiB, {verdict}")
    lines += ["", "What it proposes instead, compiled too:", ""]
    for each in found["remedies"]:
        words = " ".join(f"--{field}={value}" for field, value in each["set"].items())
        peak = each["plan"]["peak_bytes"] / 2**30
        verdict = "fits" if each["fits"] else "does not fit"
        lines.append(f"- `{words}`: {peak:.2f} GiB, {verdict}")
    return "\n".join(lines) + "\n"


def _row(cells):
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
