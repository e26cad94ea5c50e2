"""Weights of G groups of M samples: ours, jitted, against NumPy and PyTorch.

    python -m benchmarks.weights [--groups 1000 1000000] [--names grpo] [--help]

Every rival is the method's formula on whole reward arrays, as the trainers that use it
write it: vectorised NumPy, a NumPy loop over groups (timed on a subsample and scaled),
and vectorised PyTorch where it is installed. Results are compared before they are
timed. All are interleaved in one run; ratios are of medians.

Rewards in and weights out must move through memory. "copy" is the rate of a NumPy copy
of the rewards into fresh memory, and "share" how much of it ours reaches, which writes
fresh memory too, as the rivals do. Most of that time is the system handing out pages;
with the environment variable GLIBC_TUNABLES=glibc.malloc.hugetlb=1 all but NumPy, which
asks for large pages by itself, take about half. "in place" is ours when it may
overwrite the rewards (donated), and "share" relates it to a copy into memory that
exists.
"""

import argparse
import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Timing, format_seconds, interleave, print_environment
from jaxrl_surrogate.objectives import advantages, group_advantages

PARAMS: dict[str, dict[str, Any]] = {
    "grpo": {"epsilon": 1e-6},
    "pass_at_k": {"k": 4},
    "rloo_pass_at_k": {"k": 4},
    "grpo_pass_at_k": {"k": 4, "epsilon": 1e-6},
}
_LOOP_GROUPS = 1000

# Rewards (..., M) to weights, for NumPy and PyTorch alike: `xp` is either module.
Formula = Callable[[Any, Any], Any]


def _sum(xp, x):
    return xp.sum(x, axis=-1, keepdims=True)


def _mean(xp, x):
    return xp.mean(x, axis=-1, keepdims=True)


def _reinforce(xp, rewards):
    return rewards * 1.0


def _rloo(xp, rewards):
    others = (_sum(xp, rewards) - rewards) / (rewards.shape[-1] - 1)
    return rewards - others


def _dr_grpo(xp, rewards):
    return rewards - _mean(xp, rewards)


def _grpo(xp, rewards):
    std = xp.std(rewards, axis=-1, keepdims=True, correction=0)
    return (rewards - _mean(xp, rewards)) / (std + 1e-6)


def _rejection_sampling(xp, rewards):
    return rewards * (rewards.shape[-1] / xp.clip(_sum(xp, rewards), 1, None))


def _maxrl(xp, rewards):
    mean = _mean(xp, rewards)
    return (rewards - mean) / xp.clip(mean, 1 / rewards.shape[-1], None)


def _all_wrong(xp, count, size, k):
    """The share of k-subsets of `size` samples that miss all `count` right ones."""
    share = 1.0
    for j in range(k):
        share = share * (xp.clip(size - j - count, 0, None) / (size - j))
    return share


def _pass_at_k(xp, rewards, k=4):
    others = _sum(xp, rewards) - rewards
    return rewards * (k * _all_wrong(xp, others, rewards.shape[-1] - 1, k - 1))


def _rloo_pass_at_k(xp, rewards, k=4):
    last = rewards.shape[-1] - 1
    others = _sum(xp, rewards) - rewards
    return k * _all_wrong(xp, others, last, k - 1) * (rewards - others / last)


def _grpo_pass_at_k(xp, rewards, k=4):
    size = rewards.shape[-1]
    count = _sum(xp, rewards)
    miss = _all_wrong(xp, count, size, k)
    right = miss * (miss < 1) / (xp.sqrt(miss * (1 - miss)) + 1e-6)
    wrong = -right * count / xp.clip(size - count, 1, None)
    return xp.where(rewards > 0.5, right, wrong)


FORMULAS: dict[str, Formula] = {
    "reinforce": _reinforce,
    "rloo": _rloo,
    "dr_grpo": _dr_grpo,
    "grpo": _grpo,
    "rejection_sampling": _rejection_sampling,
    "maxrl": _maxrl,
    "pass_at_k": _pass_at_k,
    "rloo_pass_at_k": _rloo_pass_at_k,
    "grpo_pass_at_k": _grpo_pass_at_k,
}


@functools.partial(jax.jit, donate_argnums=1)
def _in_place(table, rewards):
    return table(rewards)


def measure(
    name: str, num_groups: int, group_size: int, repeats: int
) -> dict[str, Timing]:
    """Times of one method at one shape: ours, rivals, copies.

    Raises:
      ValueError: where a rival disagrees with ours.
    """
    generator = np.random.default_rng(0)
    rates = generator.random((num_groups, 1), np.float32)
    draws = generator.random((num_groups, group_size), np.float32)
    rewards = (draws < rates).astype(np.float32)
    on_device, existing = jnp.asarray(rewards), np.empty_like(rewards)
    fn = advantages.get(name, **PARAMS.get(name, {}))
    table = jax.tree.map(jnp.asarray, fn.table(group_size))
    formula = FORMULAS[name]
    part = rewards[:_LOOP_GROUPS]
    candidates = {
        "ours": lambda: group_advantages(table, on_device),
        "numpy": lambda: formula(np, rewards),
        "loops": lambda: np.stack([formula(np, group) for group in part]),
        "in place": (
            lambda: jnp.array(on_device, copy=True),
            lambda scratch: _in_place(table, scratch),
        ),
        "copy": rewards.copy,
        "copy in place": lambda: np.copyto(existing, rewards),
    }
    if torch := _torch():
        tensor = torch.from_numpy(rewards)
        candidates["torch"] = lambda: formula(torch, tensor)
    expected = np.asarray(candidates["ours"]())
    for rival in ("numpy", "loops", "torch"):
        if rival in candidates:
            got = np.asarray(candidates[rival]())
            # PyTorch and NumPy sum in float32; counts do not, so ours is the yardstick.
            gap = np.abs(got - expected[: len(got)]).max()
            if not gap < 1e-4:
                raise ValueError(f"{name}: {rival} differs from ours by {gap}")
    timings = interleave(candidates, repeats)
    scale = num_groups / len(part)
    loops = timings["loops"]
    timings["loops"] = Timing(
        loops.median * scale, loops.min * scale, loops.max * scale, loops.repeats
    )
    return timings


def main(argv: list[str] | None = None) -> None:
    """Print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--names", nargs="+", default=[*FORMULAS], choices=FORMULAS)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args(argv)
    print_environment(["torch"])
    for num_groups in args.groups:
        _print_table(num_groups, args.group_size, args.names, args.repeats)


def _print_table(num_groups, group_size, names, repeats):
    moved = 2 * 4 * num_groups * group_size
    print(
        f"\n{num_groups} groups of {group_size}, float32, {moved / 1e6:.4g} MB moved; "
        f"medians of {repeats} interleaved rounds, ratios to ours"
    )
    head = ("method", "ours", "numpy", "x", "loops", "x", "torch", "x")
    print(_row((*head, "copy", "share", "in place", "share")))
    for name in names:
        timings = measure(name, num_groups, group_size, repeats)
        taken = {rival: timing.median for rival, timing in timings.items()}
        cells = [name, format_seconds(taken["ours"])]
        for rival in ("numpy", "loops", "torch"):
            if rival in taken:
                ratio = taken[rival] / taken["ours"]
                cells += [format_seconds(taken[rival]), f"{ratio:.1f}"]
            else:
                cells += ["-", "-"]
        cells += [f"{moved / taken['copy'] / 1e9:.3g} GB/s"]
        cells += [f"{taken['copy'] / taken['ours']:.0%}"]
        cells += [format_seconds(taken["in place"])]
        cells += [f"{taken['copy in place'] / taken['in place']:.0%}"]
        print(_row(cells), flush=True)


def _row(cells):
    widths = (18, 8, 8, 6, 8, 8, 8, 6, 10, 6, 8, 6)
    return " ".join(
        f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _torch():
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


if __name__ == "__main__":
    main()
