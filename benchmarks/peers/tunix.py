"""Tunix on the benchmark workload: answers one JSON line for each request.

This program runs in an environment of its own (README.md beside it) and knows nothing
of this library. It reads requests such as "rollout A" or "update A", from its arguments
or else line by line from standard input, and answers each on standard output:

    {"peer": "tunix 0.1.7", "kind": "rollout", "config": "A", "seconds": 1.95,
     "tokens": 4096, "peak_rss_gb": 1.1, "first_seconds": 4.4}

`seconds` is one warm run; the first request of a kind and config warms up before it,
and only its answer has `first_seconds`, the first run with its compilation. `tokens`
are the completion tokens of a rollout, prompt plus completion tokens of an update.
`peak_rss_gb` (GiB) is the most memory the process has held so far: to compare memory,
ask one process for one thing. A request that cannot be served is answered by
{"error": ...}.
"""

import json
import os
import resource
import sys
import time

# Started as a script, Python puts this folder first on the path, and `import tunix`
# would find this very file.
sys.path[:] = [p for p in sys.path if os.path.abspath(p) != os.path.dirname(__file__)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import importlib.metadata  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from tunix.models.qwen3 import model as qwen3  # noqa: E402
from tunix.rl import rl_cluster as clusters  # noqa: E402
from tunix.rl.grpo import grpo_learner  # noqa: E402
from tunix.rl.rollout.base_rollout import RolloutConfig  # noqa: E402

# vocabulary, prompt length P, completion length T
CONFIGS = {
    "A": (8192, 32, 64),
    "B": (32768, 32, 64),
    "D": (8192, 32, 256),
    "P": (8192, 512, 32),
}
NUM_PROMPTS, GROUP_SIZE = 8, 8
PAD, BOS = 0, 1


class NumberTokenizer:
    """Text is token ids in decimal. The stop token is outside of the vocabulary, so
    that every completion has its full length."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return BOS

    def eos_id(self) -> int:
        return self.vocab_size

    def pad_id(self) -> int:
        return PAD


class Workload:
    """Tunix's GRPO learner on one config, its rollout and its update callable apart."""

    def __init__(self, name: str):
        self.vocab_size, self.prompt_length, self.completion_length = CONFIGS[name]
        self.random = np.random.default_rng(0)
        self.warm = set()
        mesh = jax.sharding.Mesh(
            np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp")
        )
        with mesh:
            model = qwen3.Qwen3(
                qwen3.ModelConfig(
                    num_layers=6,
                    vocab_size=self.vocab_size,
                    embed_dim=384,
                    hidden_dim=1152,
                    num_heads=6,
                    head_dim=64,
                    num_kv_heads=2,
                    rope_theta=1_000_000,
                    norm_eps=1e-6,
                    use_tied_embedding=True,
                ),
                rngs=nnx.Rngs(params=0),
            )
        self.cluster = clusters.RLCluster(
            actor=model,
            tokenizer=NumberTokenizer(self.vocab_size),
            cluster_config=clusters.ClusterConfig(
                role_to_mesh={
                    clusters.Role.ACTOR: mesh,
                    clusters.Role.REFERENCE: mesh,
                    clusters.Role.ROLLOUT: mesh,
                },
                training_config=clusters.RLTrainingConfig(
                    actor_optimizer=optax.adamw(1e-4),
                    eval_every_n_steps=10**9,
                    max_steps=10**9,
                ),
                rollout_config=RolloutConfig(
                    max_tokens_to_generate=self.completion_length,
                    max_prompt_length=self.prompt_length,
                    kv_cache_size=self.prompt_length + self.completion_length,
                    temperature=1.0,
                    top_p=1.0,
                ),
            ),
        )
        self.learner = grpo_learner.GRPOLearner(
            rl_cluster=self.cluster,
            algo_config=grpo_learner.GRPOConfig(
                num_generations=GROUP_SIZE, num_iterations=1, beta=0.0, epsilon=0.2
            ),
            reward_fns=lambda prompts, completions, **_: [0.0] * len(prompts),
        )

    def prepare(self, kind: str):
        """Fresh random input, made outside of the time that is measured."""
        draw = self.random.integers
        rows = NUM_PROMPTS * GROUP_SIZE
        prompts = draw(2, self.vocab_size, (NUM_PROMPTS, self.prompt_length))
        prompts[:, 0] = BOS
        prompts = np.repeat(prompts, GROUP_SIZE, axis=0).astype(np.int32)
        if kind == "rollout":
            return [" ".join(map(str, prompt[1:])) for prompt in prompts]
        shape = (rows, self.completion_length)
        rewards = draw(0, 2, (NUM_PROMPTS, GROUP_SIZE)).astype(np.float32)
        centred = rewards - rewards.mean(1, keepdims=True)
        advantages = (centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)).ravel()
        example = grpo_learner.TrainExample(
            prompt_ids=prompts,
            prompt_mask=np.ones_like(prompts, bool),
            completion_ids=draw(2, self.vocab_size, shape).astype(np.int32),
            completion_mask=np.ones(shape, bool),
            advantages=advantages,
            ref_per_token_logps=None,
            old_per_token_logps=None,
        )
        return jax.block_until_ready(jax.tree.map(jax.numpy.asarray, example))

    def run(self, kind: str) -> float:
        """Run one rollout or update to its end and return its seconds."""
        given = self.prepare(kind)
        began = time.perf_counter()
        if kind == "rollout":
            output = self.cluster.generate(given, micro_batch_size=len(given))
            seconds = time.perf_counter() - began  # the tokens are on the host
            lengths = {len(tokens) for tokens in output.tokens}
            if lengths != {self.completion_length}:
                raise RuntimeError(f"completions of lengths {sorted(lengths)}")
            return seconds
        self.cluster.update_actor([given], None)
        jax.block_until_ready(nnx.state(self.cluster.actor_trainer.model))
        return time.perf_counter() - began

    def measure(self, kind: str) -> dict:
        """Measure one warm run; see the module's docstring."""
        first = {}
        if kind not in self.warm:
            first["first_seconds"] = self.run(kind)
            self.run(kind)  # shardings settle in the second call
            self.warm.add(kind)
        seconds = self.run(kind)
        rows = NUM_PROMPTS * GROUP_SIZE
        tokens = rows * self.completion_length
        if kind == "update":
            tokens += rows * self.prompt_length
        # Linux counts in KiB, macOS in bytes.
        unit = 2**30 if sys.platform == "darwin" else 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {"seconds": seconds, "tokens": tokens, "peak_rss_gb": peak} | first


def answer(request: str, workloads: dict[str, Workload]) -> dict:
    """Serve one request, "rollout X" or "update X"."""
    words = request.split()
    if (
        len(words) != 2
        or words[0] not in ("rollout", "update")
        or words[1] not in CONFIGS
    ):
        return {
            "error": f"{request!r}: expected rollout or update, one of {[*CONFIGS]}"
        }
    kind, config = words
    try:
        if config not in workloads:
            workloads[config] = Workload(config)
        measured = workloads[config].measure(kind)
    except Exception as error:  # the benchmark that asked is told, and may ask on
        return {"error": f"{request}: {type(error).__name__}: {error}"}
    peer = f"tunix {importlib.metadata.version('google-tunix')}"
    return {"peer": peer, "kind": kind, "config": config} | measured


def main() -> None:
    """Answer requests until there are no more."""
    # Answers alone go to standard output: what libraries print there goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    words = sys.argv[1:]
    given = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    workloads = {}
    for request in given or sys.stdin:
        if request.strip():
            print(
                json.dumps(answer(request.strip(), workloads)), file=answers, flush=True
            )


if __name__ == "__main__":
    main()
