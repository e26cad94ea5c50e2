"""Train one config with several objectives and seeds; pass@1 and pass@8 of each.

    python -m benchmarks.objectives --seeds 0 1 2 --objectives rloo
    python -m benchmarks.objectives --out docs/quickstart_objectives.md

Each run is a `jaxrl train` of its own, with everything but the objective, the seed and
the run directory as the config says. A finished run in --runs is not run again.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import time

OBJECTIVES = {
    "rloo": [],
    "grpo": [],
    "rejection_sampling": [],
    "rloo_pass_at_k": ["--objective.options.k=4"],
    "log": [],
}
SHOWN = ("pass@1", "pass@8")


def train(config: str, name: str, seed: int, runs: pathlib.Path) -> dict:
    """Scores before and after, and seconds, of one run.

    Raises:
      subprocess.CalledProcessError: the run failed.
    """
    directory = runs / f"{pathlib.Path(config).stem}-{name}-{seed}"
    command = [
        sys.executable, "-m", "jaxrl_surrogate", "train", config, f"--seed={seed}",
        f"--run_dir={directory}", f"--objective.name={name}", *OBJECTIVES.get(name, []),
    ]  # fmt: skip
    taken = directory / "seconds.txt"
    if not taken.exists():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        taken.write_text(f"{time.perf_counter() - began:.0f}")
    rows = [
        json.loads(line)
        for line in (directory / "metrics.jsonl").read_text().splitlines()
    ]
    scored = [row for row in rows if f"eval/{SHOWN[0]}" in row]
    return {
        "before": scored[0],
        "after": scored[-1],
        "seconds": int(taken.read_text()),
        "steps": rows[-1]["step"],
    }


def main(argv: list[str] | None = None) -> None:
    """Print, or write, one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--out", type=pathlib.Path, help="a file for the table")
    args = parser.parse_args(argv)
    words = " ".join(sys.argv[1:] if argv is None else argv)
    head = ["objective", "seed"]
    head += [f"{name} {when} RL" for name in SHOWN for when in ("before", "after")]
    lines = [
        f"Made by `python -m benchmarks.objectives {words}`.".replace(" `.", "`."),
        "Mean over test prompts, in brackets its 95% interval over prompts; seconds",
        "are those of the whole command.",
        "",
        f"| {' | '.join([*head, 'steps', 'seconds'])} |",
        "|" + "---|" * (len(head) + 2),
    ]
    for name, seed in itertools.product(args.objectives, args.seeds):
        found = train(args.config, name, seed, args.runs)
        options = "".join(
            f" {option.rpartition('.')[2]}" for option in OBJECTIVES.get(name, [])
        )
        cells = [f"`{name}`{options}", str(seed)]
        for metric in SHOWN:
            cells += [_interval(found[when], metric) for when in ("before", "after")]
        cells += [str(found["steps"]), str(found["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


def _interval(scores, metric):
    mean, low, high = (scores[f"eval/{metric}{end}"] for end in ("", "_low", "_high"))
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
