"""What each default of a run costs: `python -m benchmarks.defaults [--rounds 5]`.

Parameters of SmolLM2-135M's shape (random numbers), one process. Every round takes one
step as the loop does and then each thing that a default adds to it, once, by the
functions that the loop calls; then a second step while a state is being stored in the
background. What is reported is the median over rounds, per step at the default
interval, as a share of the step alone. The share depends on the tokens of a step, which
are few here: what does not grow with them weighs less in a real run, and more on a
faster device.
"""

import argparse
import dataclasses
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from benchmarks.timing import format_seconds, print_environment
from jaxrl_surrogate import assembly, losses, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.loop.batch_metrics import batch_metrics
from jaxrl_surrogate.loop.verification import sample_rows
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.reward_journal import RewardJournal
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training.step import make_update

SHAPES = {
    "smollm2-135m": "{vocab_size: 49152, num_layers: 30, embed_dim: 576, num_heads: 9,"
    " num_kv_heads: 3, head_dim: 64, mlp_dim: 1536, qk_norm: false, norm_eps: 1.0e-5,"
    " rope_theta: 100000.0, tie_embeddings: true}",
    "nano": "{vocab_size: 98}",
}


class Measurement:
    """Seconds of everything, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, name: str, function: Callable, *given):
        """Time one call; what it returns is waited for."""
        began = time.perf_counter()
        found = jax.block_until_ready(function(*given))
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return found

    def median(self, name: str) -> float:
        """Over the rounds; the first compiles and does not count."""
        return statistics.median(self.seconds[name][1:])


class Job:
    """A run, its state, and the records that its defaults keep."""

    def __init__(self, directory: Path, args: argparse.Namespace):
        words = [
            f"--run_dir={directory}",
            f"--model.preset={'nano' if args.model == 'nano' else 'small'}",
            f"--model.overrides={SHAPES[args.model]}",
            f"--rollout.prompts_per_step={args.prompts}",
            f"--rollout.group_size={args.samples}",
            f"--rollout.max_prompt_length={args.length}",
            f"--rollout.max_completion_length={args.length}",
        ]
        empty = directory / "defaults.yaml"
        empty.write_text("{}\n", encoding="utf-8")
        self.config = settings.load(TrainConfig, empty, words)
        self.run = run = assembly.build_run(self.config)
        self.state = loop.init_params(run.model, run.mesh, run.seed)
        self.state = loop.restart(self.state, run.model, run.optimizer, run.mesh)
        self.update = make_update(run.model, run.update, run.optimizer, run.mesh)
        self.store = RunCheckpoints(directory / "checkpoints")
        quiet = Console(quiet=True)
        self.log = RunLog(
            directory / "log", 10**6, tensorboard=False, console=quiet, every=1
        )
        self.events = RunLog(directory / "events", 10**6, console=quiet, every=1)
        self.events.resume(0)
        self.directory, self.step = directory, 0
        self.applied = jax.jit(
            lambda *given: losses.applied_weights(run.update.loss, *given)
        )

    def sample(self):
        """Prompts and completions of the next step."""
        self.step += 1
        run = self.run
        problems = run.prompts.take(run.rollout.prompts_per_step)
        run.collector.sampler.load(self.state.params, self.step - 1)
        return problems, run.collector.sample(problems, self.step)

    def take_step(self, batch):
        """All updates on a batch."""
        self.state, metrics, applied = loop.update_phase(
            self.run, self.update, self.state, batch, None, self.step
        )
        return metrics, applied

    def round(self, measure: Measurement) -> None:
        """A step, what defaults add to it, and a step while a state is stored."""
        run, log, step = self.run, self.log, self.step + 1
        gc.collect()  # not where it happens to be due: it takes as long as a save
        problems, sampled = measure("rollout", self.sample)
        batch, _ = measure(
            "verification", run.collector.verification.verify, problems, *sampled
        )
        batch = self.rewarded(batch)
        metrics, applied = measure("update", self.take_step, batch)
        metrics |= batch_metrics(batch, self.step)
        row = measure("state digests", digests.state_digests, self.state)
        row |= measure("batch digests", loop.step_digests, batch, applied, None)
        measure("digests.jsonl", log.digests, step, row)
        measure("groups.jsonl", log.groups, step, batch, applied)
        measure("metrics.jsonl", log.metrics, step, metrics)
        measure("TensorBoard", self.events.metrics, step, metrics)
        measure("events.jsonl", lambda: [log.event(step, name) for name in "abc"])
        measure("completions.jsonl", self.completions, batch)
        measure("reward journal", self.journal, batch)
        measure("applied weights", self.applied, *self.loss_inputs(batch))
        self.store_rollout(measure, batch, "rollout stored")
        measure("rollout durable", self.store.wait)
        measure("state stored", self.store_state, row["state"])
        # The next step meets the files that are being written.
        problems, sampled = measure("rollout meanwhile", self.sample)
        batch = self.rewarded(run.collector.verification.verify(problems, *sampled)[0])
        self.store_rollout(measure, batch, "rollout stored after it")
        measure("update meanwhile", self.take_step, batch)
        self.store.wait()

    def store_rollout(self, measure: Measurement, batch, name: str) -> None:
        """As the loop stores it."""
        measure(name, self.store.save_rollout, self.step, batch, {"step": self.step})

    def store_state(self, known: dict[str, str]) -> None:
        """As the loop stores it, with the digests that it logged."""
        meta = {"step": self.step}
        self.store.save_update(self.step, self.state, meta, None, known)

    def rewarded(self, batch):
        """Random rewards: those of random parameters are 0, and so their gradient."""
        rewards = np.random.default_rng(self.step).integers(2, size=batch.rewards.shape)
        return dataclasses.replace(batch, rewards=rewards.astype(np.float32))

    def completions(self, batch) -> None:
        """The rows that are shown, decoded and written."""
        rows = sample_rows(
            self.run.collector.verification, batch, self.run.log.completions
        )
        self.log.completions(self.step, rows)

    def journal(self, batch) -> None:
        """Every group's rewards, a line each."""
        journal = RewardJournal(self.directory / "rewards" / f"{self.step}.jsonl")
        given = batch.prompts, batch.completions
        journal.known(*given)
        for group, row in enumerate(batch.rewards):
            journal.add(group, *given, row, batch.reward_mask[group])

    def loss_inputs(self, batch):
        """What `applied_weights` is computed from, on the device."""
        logprobs = batch.completions.sampler_logprobs
        given = (logprobs, logprobs, batch.rewards, np.ones_like(logprobs))
        return jax.device_put(given, partition.batch_sharding(self.run.mesh))

    def evaluate(self) -> None:
        """As before and after training."""
        loop.run_evaluation(self.run, self.state.params, self.step)


def report(job: Job, measure: Measurement, evaluation: float) -> None:
    """One line for each default, a step's share first."""
    phases = ("rollout", "verification", "update")
    step = sum(map(measure.median, phases))
    print(f"\na step alone: {format_seconds(step)}")
    for name in phases:
        print(f"  {name:24} {format_seconds(measure.median(name)):>9}")
    log, checkpoint = job.config.log, job.config.checkpoint
    slower = sum(
        max(0.0, measure.median(f"{name} meanwhile") - measure.median(name))
        for name in ("rollout", "update")
    )
    waited = measure.median("rollout stored after it") - measure.median(
        "rollout stored"
    )
    costs = {name: (measure.median(name), 1) for name in (
        "state digests", "batch digests", "digests.jsonl", "groups.jsonl",
        "metrics.jsonl", "TensorBoard", "events.jsonl", "reward journal",
        "applied weights", "rollout stored",
    )}  # fmt: skip
    costs["state digests"] = costs["state digests"][0], checkpoint.every
    costs |= {
        "completions.jsonl": (
            measure.median("completions.jsonl"),
            log.completions_every,
        ),
        "state stored: the call": (measure.median("state stored"), checkpoint.every),
        "  the next save waits": (max(0.0, waited), checkpoint.every),
        "  the next step slows": (slower, checkpoint.every),
    }
    print(f"\n{'default':24} {'once':>9} {'every':>6} {'of a step':>10}")
    for name, (seconds, every) in costs.items():
        share = seconds / every / step if every else 0.0
        print(f"{name:24} {format_seconds(seconds):>9} {every:6} {share:10.2%}")
    total = sum(seconds / every for seconds, every in costs.values() if every)
    print(f"{'all':24} {format_seconds(total):>9} {1:6} {total / step:10.2%}")
    if evaluation:
        print(
            f"\none evaluation, {len(job.run.eval_problems)} problems x "
            f"{job.config.eval.samples} samples: {format_seconds(evaluation)}, "
            f"{evaluation / step:.1f} steps; two in a run"
        )


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5, help="that count, of medians")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=32, help="of prompts, of answers")
    parser.add_argument("--evaluation", action="store_true", help="time one too")
    args = parser.parse_args(argv)
    print_environment(("flax", "optax", "orbax-checkpoint", "tensorboardX"))
    with tempfile.TemporaryDirectory() as directory:
        job, measure = Job(Path(directory), args), Measurement()
        gc.disable()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(job.state))
        print(
            f"# {args.model}, state of {size / 2**20:.0f} MiB; {args.prompts} prompts, "
            f"padded to {args.length} tokens, x {args.samples} completions of at most "
            f"{args.length}"
        )
        for _ in range(args.rounds + 1):
            job.round(measure)
        evaluation = 0.0
        if args.evaluation:
            for _ in range(2):
                measure("evaluation", job.evaluate)
            evaluation = measure.seconds["evaluation"][-1]
        job.store.close()
        report(job, measure, evaluation)


if __name__ == "__main__":
    main()
