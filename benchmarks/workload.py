"""The workload of `rollout` and `train_step`, and our side of it, as a process.

A Qwen3 block with random float32 parameters, 8 prompts with 8 samples each, no stop
token: the same arrays' worth of work as `peers/README.md` describes for other trainers,
answered by the same protocol, so that a benchmark treats both sides alike:

    echo "rollout A" | python -m benchmarks.workload

Beside the protocol's keys, the first answer of a kind and config holds
`compile_seconds` (tracing and compiling, without running) and `parts`, medians in
seconds of pieces of the work that are compiled apart.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import optax

from jaxrl_surrogate import models, parallel, rng
from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.objectives import advantages, table_family
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.rollout import (
    DecodeConfig,
    RolloutConfig,
    SamplingConfig,
    rollout,
)
from jaxrl_surrogate.training.state import init_state
from jaxrl_surrogate.training.step import (
    ComputeConfig,
    UpdateConfig,
    apply_gradients,
    make_update,
)

# vocabulary, prompt length P, completion length T
CONFIGS = {
    "A": (8192, 32, 64),
    "B": (32768, 32, 64),
    "D": (8192, 32, 256),
    "P": (8192, 512, 32),
}
NUM_PROMPTS, GROUP_SIZE = 8, 8
_PART_REPEATS = 5


class Workload:
    """One config: its rollout and its update, callable apart."""

    def __init__(self, name: str, microbatch_prompts: int):
        vocab_size, self.prompt_length, self.completion_length = CONFIGS[name]
        self.model = models.DecoderConfig(
            vocab_size=vocab_size,
            num_layers=6,
            embed_dim=384,
            num_heads=6,
            num_kv_heads=2,
            head_dim=64,
            mlp_dim=1152,
            qk_norm=True,
            rope_theta=1e6,
        )
        self.mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
        self.optimizer = optax.adamw(1e-4)
        self.update_config = UpdateConfig(
            loss=LossConfig(policy="ppo_clip", clip_low=0.2, clip_high=0.2),
            sampling=SamplingConfig(),
            compute=ComputeConfig(microbatch_prompts=microbatch_prompts),
        )
        self.decode = DecodeConfig(
            RolloutConfig(
                group_size=GROUP_SIZE, max_completion_length=self.completion_length
            ),
            stop_tokens=(),
            unroll_layers=jax.default_backend() == "cpu",
        )
        self.state = init_state(self.model, self.optimizer, self.mesh, seed=0)
        self.family = table_family(advantages.get("grpo").table, GROUP_SIZE)
        self.random = np.random.default_rng(0)
        self.compiled = {}
        self.runs = 0

    def prepare(self, kind: str):
        """Fresh random input on the device, made outside of the time measured."""
        draw = self.random.integers
        vocab_size = self.model.vocab_size
        prompts = Prompts(
            draw(2, vocab_size, (NUM_PROMPTS, self.prompt_length), np.int32),
            np.full(NUM_PROMPTS, self.prompt_length, np.int32),
            np.arange(NUM_PROMPTS, dtype=np.uint32),
        )
        self.runs += 1
        if kind == "rollout":
            return self.state.params, prompts, rng.stream_key(0, "rollout", self.runs)
        shape = (NUM_PROMPTS, GROUP_SIZE)
        completions = Completions(
            tokens=draw(2, vocab_size, (*shape, self.completion_length), np.int32),
            lengths=np.full(shape, self.completion_length, np.int32),
            truncated=np.ones(shape, bool),
            sampler_logprobs=np.full(
                (*shape, self.completion_length), -np.log(vocab_size), np.float32
            ),
            loss_mask=np.ones((*shape, self.completion_length), bool),
            policy_step=np.zeros(shape, np.int32),
        )
        rewards = draw(0, 2, shape).astype(np.float32)
        batch = Batch(prompts, completions, rewards, np.ones(shape, bool))
        batch = jax.device_put(batch, partition.batch_sharding(self.mesh))
        return self.state, batch, self.family, None

    def compile(self, kind: str) -> float:
        """Trace and compile one kind of work; return the seconds it took."""
        given = self.prepare(kind)
        began = time.perf_counter()
        if kind == "rollout":
            lowered = rollout.lower(self.model, self.decode, *given)
        else:
            update = make_update(
                self.model, self.update_config, self.optimizer, self.mesh
            )
            lowered = update.lower(*given)
        self.compiled[kind] = lowered.compile()
        return time.perf_counter() - began

    def run(self, kind: str) -> float:
        """Run one rollout or update to its end and return its seconds."""
        given = jax.block_until_ready(self.prepare(kind))
        began = time.perf_counter()
        if kind == "rollout":
            done = jax.device_get(self.compiled[kind](*given))
            seconds = time.perf_counter() - began
            if not (done.lengths == self.completion_length).all():
                raise RuntimeError(f"completions of lengths {np.unique(done.lengths)}")
            return seconds
        self.state, _ = jax.block_until_ready(self.compiled[kind](*given))
        return time.perf_counter() - began

    def measure(self, kind: str) -> dict:
        """One warm run, and what is measured once."""
        first = {}
        if kind not in self.compiled:
            compile_seconds = self.compile(kind)
            first = {
                "compile_seconds": compile_seconds,
                "first_seconds": compile_seconds + self.run(kind),
            }
            self.run(kind)
        seconds = self.run(kind)
        # Linux counts in KiB, macOS in bytes.
        unit = 2**30 if sys.platform == "darwin" else 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        if first:  # after the memory was read: parts compile programs of their own
            first["parts"] = self.parts(kind)
        tokens = NUM_PROMPTS * GROUP_SIZE * self.completion_length
        if kind == "update":
            tokens += NUM_PROMPTS * GROUP_SIZE * self.prompt_length
        return {"seconds": seconds, "tokens": tokens, "peak_rss_gb": peak} | first

    def parts(self, kind: str) -> dict[str, float]:
        """Medians, in seconds, of pieces of the work compiled apart."""
        given = self.prepare(kind)
        if kind == "rollout":
            params, prompts, _ = given
            prefill = jax.jit(
                lambda params: models.prefill(
                    self.model, params, prompts.tokens, prompts.lengths
                )
            )
            return {"prefill": _median(prefill, params)}
        state, batch, family, _ = given
        weights = jax.jit(lambda rewards: family(rewards))
        inputs = (batch.prompts.tokens, batch.prompts.lengths, batch.completions.tokens)
        forward = jax.jit(
            lambda params: models.token_logprobs(self.model, params, *inputs).logprobs
        )
        optimizer = jax.jit(
            lambda state: apply_gradients(
                self.optimizer, state, state.params, np.float32(0)
            )[0]
        )
        return {
            "weights": _median(weights, batch.rewards),
            "forward": _median(forward, state.params),
            "optimizer": _median(optimizer, state),
        }


def _median(function, *given) -> float:
    jax.block_until_ready(function(*given))
    taken = []
    for _ in range(_PART_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*given))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main(argv: list[str] | None = None) -> None:
    """Answer requests such as "rollout A" until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--microbatch-prompts", type=int, default=0, help="of an update; 0: all at once"
    )
    args = parser.parse_args(argv)
    workloads: dict[str, Workload] = {}
    for line in sys.stdin:
        kind, config = line.split()
        if config not in workloads:
            workloads[config] = Workload(config, args.microbatch_prompts)
        print(json.dumps(workloads[config].measure(kind)), flush=True)


if __name__ == "__main__":
    main()
