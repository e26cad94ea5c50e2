"""Tokens per second of an update, ours and a peer's, in one interleaved run.

    python -m benchmarks.train_step [--peer-python .venv-peers/bin/python]

One GRPO update on 8 prompts x 8 completions: weights from rewards, loss, gradients,
AdamW. Tokens are prompt and completion tokens of all samples, as the peer computes
them; ours computes a prompt once for its group. "ours" takes the batch whole, as the
peer does, "ours, 2 prompts" accumulates over four slices. Memory is the most the
process held. See peers/README.md for shapes and for how to install the peer.
"""

import argparse

from benchmarks import duel

# Ratios to the peer below which something has become slow.
GATES = {"A": 1.25, "B": 1.5}


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    duel.add_arguments(parser, "A B D")
    args = parser.parse_args(argv)
    sides = duel.commands(
        args, {"ours": [], "ours, 2 prompts": ["--microbatch-prompts", "2"]}
    )
    results = {
        config: duel.duel(f"update {config}", sides, args.rounds)
        for config in args.configs
    }
    duel.print_results("update, tokens per second", GATES, results)


if __name__ == "__main__":
    main()
