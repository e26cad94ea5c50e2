"""Makes tests/models/fixtures: small random checkpoints and what transformers says.

    pip install -e '.[parity]' && python -m tests.make_hf_fixtures [NAME ...]

Each folder is as transformers saves a model: config.json and safetensors, in the dtype
and the number of files that the table below says. `expected.npz` has what it computes
in float32, with eager attention: the tokens of greedy decoding from prompts of several
lengths that are padded in one batch, with a cache, and the logits of each sequence
read whole and alone.

    python -m tests.make_hf_fixtures --exports

has `models.hf` read each of them and write it again, with its own config and with ours,
and transformers compute the same from what was written.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "models" / "fixtures"
LENGTHS, NEW_TOKENS, VOCABULARY = (9, 4, 7), 8, 32
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}


def _scaled(kind: str, **numbers: float) -> dict:
    return {"rope_theta": 50.0, "rope_type": kind, **numbers}


# name: the config's class, its options, dtype of the tensors, bytes of a file
VARIANTS: dict[str, tuple[str, dict, str, int]] = {
    "llama2": (
        "LlamaConfig",
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
        "float32",
        10**9,
    ),
    "llama3": (
        "LlamaConfig",
        {
            "rope_parameters": _scaled(
                "llama3", factor=4.0, low_freq_factor=0.5, high_freq_factor=2.0,
                original_max_position_embeddings=16,
            )
        },
        "bfloat16",
        10**9,
    ),
    "llama_linear": (
        "LlamaConfig",
        {"rope_parameters": _scaled("linear", factor=2.0)},
        "float16",
        10**9,
    ),
    "smollm2": (
        "LlamaConfig",
        {
            "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        },
        "bfloat16",
        10**9,
    ),
    "mistral": ("MistralConfig", {"sliding_window": 5}, "bfloat16", 10**9),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}, "bfloat16", 10**9),
    "qwen2_window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
        "bfloat16",
        10**9,
    ),
    "qwen3": ("Qwen3Config", {"attention_bias": True}, "bfloat16", 4_000),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "norm_topk_prob": True,
        },
        "bfloat16",
        10**9,
    ),
    "gemma2": (
        "Gemma2Config",
        {
            "num_hidden_layers": 3, "sliding_window": 5, "query_pre_attn_scalar": 12,
            "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0,
        },
        "bfloat16",
        10**9,
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "num_hidden_layers": 4, "sliding_window": 5, "query_pre_attn_scalar": 12,
            "layer_types": [*["sliding_attention"] * 2, "full_attention"] * 1
            + ["sliding_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
                "full_attention": _scaled("linear", factor=4.0),
            },
        },
        "bfloat16",
        10**9,
    ),
    "olmo2": ("Olmo2Config", {"attention_bias": True}, "bfloat16", 10**9),
}  # fmt: skip


def make(name: str) -> None:
    """Write the folder of one variant in the place of what was there."""
    import torch
    import transformers

    kind, options, dtype, file_bytes = VARIANTS[name]
    sizes = {key: value for key, value in _SIZES.items() if key not in options}
    config = getattr(transformers, kind)(
        **sizes, **options, attn_implementation="eager", eos_token_id=None,
        bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    for seed in range(100):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(_draw(torch, parameter))
        model.tie_weights()
        folder = FIXTURES / name
        shutil.rmtree(folder, ignore_errors=True)
        model.to(getattr(torch, dtype)).save_pretrained(
            folder, max_shard_size=file_bytes
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        expected = _expected(torch, model.eval(), seed)
        if expected is not None:
            break
    else:
        raise RuntimeError(f"{name}: every seed has near ties")
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(folder / "expected.npz", **expected)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: seed {seed}, {size / 1e3:.0f} kB")


def _draw(torch, parameter):
    """Matrices that keep the size of what they read; biases and scales that differ."""
    if parameter.dim() == 1:
        return parameter + 0.3 * torch.randn_like(parameter)
    return torch.randn_like(parameter) * 1.5 * parameter.shape[-1] ** -0.5


def _expected(torch, model, seed):
    """Tokens and logits, or None where greedy decoding has a near tie."""
    random = np.random.default_rng(seed)
    rows = [random.integers(1, VOCABULARY, size=length) for length in LENGTHS]
    width = max(LENGTHS)
    padded = np.zeros((len(rows), width), np.int64)
    mask = np.zeros_like(padded)
    prompts = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        padded[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
        prompts[i, : len(row)] = row
    with torch.no_grad():
        out = model.generate(
            torch.tensor(padded), attention_mask=torch.tensor(mask), do_sample=False,
            max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        tokens = out[:, width:].numpy()
        logits = np.zeros((len(rows), width + NEW_TOKENS, VOCABULARY), np.float32)
        for i, row in enumerate(rows):
            whole = np.concatenate([row, tokens[i]])
            logits[i, : len(whole)] = model(torch.tensor(whole[None])).logits[0].numpy()
    for i, row in enumerate(rows):
        choices = logits[i, len(row) - 1 : len(row) + NEW_TOKENS - 1]
        second, first = np.sort(choices, -1)[:, -2:].T
        if (first - second).min() < 1e-3 * np.abs(logits).max():
            return None
        assert (choices.argmax(-1) == tokens[i]).all(), "transformers with itself"
    return {
        "prompts": prompts,
        "lengths": np.array(LENGTHS, np.int32),
        "tokens": tokens.astype(np.int32),
        "logits": logits,
    }


def check_export(name: str) -> None:
    """Have transformers load what `models.hf.save` writes, and compare.

    Raises:
      AssertionError: other logits or other greedy tokens.
    """
    import torch
    import transformers

    from jaxrl_surrogate.models import hf

    config, params = hf.load(FIXTURES / name)
    expected = np.load(FIXTURES / name / "expected.npz")
    for like in (FIXTURES / name, None):
        with tempfile.TemporaryDirectory() as folder:
            hf.save(Path(folder) / "new", config, params, like=like)
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                Path(folder) / "new", dtype=torch.float32, attn_implementation="eager",
                output_loading_info=True,
            )  # fmt: skip
        assert not any(info.values()), info
        for row, length in enumerate(expected["lengths"]):
            prompt = expected["prompts"][row, :length]
            whole = np.concatenate([prompt, expected["tokens"][row]])
            with torch.no_grad():
                logits = model(torch.tensor(whole[None])).logits[0].numpy()
                tokens = model.generate(
                    torch.tensor(prompt[None]), do_sample=False, pad_token_id=0,
                    max_new_tokens=NEW_TOKENS, eos_token_id=None,
                )[0, length:]  # fmt: skip
            np.testing.assert_array_equal(logits, expected["logits"][row, : len(whole)])
            np.testing.assert_array_equal(tokens, expected["tokens"][row])
    print(f"{name}: the same from both exports")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--exports", action="store_true", help="compare exports")
    given = parser.parse_args()
    for each in given.names or VARIANTS:
        (check_export if given.exports else make)(each)
