"""Reads a GGUF file of a Llama: de-quantised tensors with the names of transformers.

GGUF stores the query and key rows of each head with rotary pairs side by side, (0, 1),
(2, 3), ... Here and in transformers the pairs are (i, i + H/2), so rows are reordered.
"""

import re
from pathlib import Path

import numpy as np

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.models.hf.gguf_header import check_header
from jaxrl_surrogate.models.hf.source import Index, Stored

# From metadata to keys of config.json, for the architecture "llama".
_KEYS = {
    "num_hidden_layers": "llama.block_count",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
    "max_position_embeddings": "llama.context_length",
    "vocab_size": "llama.vocab_size",
    "head_dim": "llama.attention.key_length",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
}
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFFile:
    """Tensors of one GGUF file; see `TensorSource`.

    Attributes:
      hf_config: the config.json that transformers would have.
      tensors: shape and kind of quantisation of each tensor.
      metadata: the file's metadata, tokenizer and chat template included.
    """

    def __init__(self, path: Path):
        """Read metadata and the list of tensors.

        Raises:
          FieldErrors: it is no GGUF file, is truncated, or has another architecture.
        """
        self._library = _library(path)
        try:
            check_header(path)
            reader = self._library.GGUFReader(path)
            self.metadata = {
                name: field.contents() for name, field in reader.fields.items()
            }
        except (OSError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise FieldError(str(path), problem=f"not to be read: {error}") from None
        self.hf_config = _hf_config(path, self.metadata)
        self._tensors = {_hf_name(tensor.name): tensor for tensor in reader.tensors}
        self.tensors = {
            name: Stored(
                tuple(int(size) for size in reversed(tensor.shape)),
                tensor.tensor_type.name,
            )
            for name, tensor in self._tensors.items()
        }
        for name in ("vocab_size", "tie_word_embeddings"):
            table = self.tensors.get("model.embed_tokens.weight")
            values = {
                "vocab_size": table and table.shape[0],
                "tie_word_embeddings": "lm_head.weight" not in self.tensors,
            }
            self.hf_config.setdefault(name, values[name])

    def dtype(self, name: str) -> np.dtype | None:
        """Return float32 for supported kinds of quantisation, None for others."""
        try:
            return self._rows(name, slice(0, 1)).dtype
        except NotImplementedError:
            return None

    def read(self, name: str, index: Index) -> np.ndarray:
        """Read a slice of a tensor as float32; complete rows are de-quantised."""
        paired = re.search(r"self_attn\.([qk])_proj", name)
        if paired is None:
            return self._rows(name, index[0])[:, *index[1:]]
        key = "num_key_value_heads" if paired[1] == "k" else "num_attention_heads"
        rows = self._rows(name, slice(None))
        pairs = rows.reshape(self.hf_config[key], -1, 2, *rows.shape[1:])
        return pairs.swapaxes(1, 2).reshape(rows.shape)[index]

    def _rows(self, name, rows):
        tensor = self._tensors[name]
        return self._library.quants.dequantize(tensor.data[rows], tensor.tensor_type)


def _hf_config(path, metadata):
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise FieldError(str(path), kind, "llama", problem="its general.architecture")
    scaled = sorted(
        key for key in metadata
        if key.startswith("llama.rope.scaling.type") and metadata[key] != "none"
    )  # fmt: skip
    if scaled or "llama.expert_count" in metadata:
        raise FieldErrors(
            FieldError(key, metadata[key], problem="not read from GGUF")
            for key in (*scaled, "llama.expert_count")
            if key in metadata
        )
    hf = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    return hf | {
        ours: _decimal(metadata[theirs])
        for ours, theirs in _KEYS.items()
        if theirs in metadata
    }


def _decimal(value):
    """A float32 as the shortest decimal that it stands for, 1e-5 for 9.9999997e-6."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _hf_name(name):
    """As transformers calls a tensor; unknown names stay, and are refused later."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block and block[2] in _NAMES:
        return f"model.layers.{block[1]}.{_NAMES[block[2]]}.{block[3]}"
    end = re.fullmatch(r"(\w+)\.weight", name)
    return f"{_NAMES[end[1]]}.weight" if end and end[1] in _NAMES else name


def _library(path):
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise FieldError(
            "path", str(path), remedy="pip install -e '.[gguf]'",
            problem="reading it needs the package gguf",
        ) from None  # fmt: skip
    return gguf
