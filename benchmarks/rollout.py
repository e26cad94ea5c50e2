"""Tokens per second of a rollout, ours and a peer's, in one interleaved run.

    python -m benchmarks.rollout [--peer-python .venv-peers/bin/python] [--configs A B]

Every process samples 8 completions of 8 prompts again and again; the time is that of
one warm rollout until its tokens are on the host. `prefill` is the time of the prompts
alone, compiled apart. See peers/README.md for shapes and for how to install the peer.
"""

import argparse

from benchmarks import duel

# Ratios to the peer below which something has become slow.
GATES = {"A": 1.7, "B": 2.3, "D": 1.8, "P": 6.0}


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    duel.add_arguments(parser, "A B D P")
    args = parser.parse_args(argv)
    sides = duel.commands(args, {"ours": []})
    results = {
        config: duel.duel(f"rollout {config}", sides, args.rounds)
        for config in args.configs
    }
    duel.print_results("rollout, completion tokens per second", GATES, results)


if __name__ == "__main__":
    main()
