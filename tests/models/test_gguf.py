"""Reading GGUF files: quantised, and with rows in another order."""

import struct

import gguf
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from jaxrl_surrogate import models
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.models import hf

CONFIG = models.DecoderConfig(
    vocab_size=40, num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2, head_dim=8,
    mlp_dim=64, rope_theta=1e5, norm_eps=1e-5,
)  # fmt: skip
HEADS = {"q": 4, "k": 2}
LAYER = {
    "attn_norm": ("attention_norm", "scale"),
    "ffn_norm": ("mlp_norm", "scale"),
    "attn_v": ("attention", "v", "kernel"),
    "attn_q": ("attention", "q", "kernel"),
    "attn_k": ("attention", "k", "kernel"),
    "attn_output": ("attention", "out", "kernel"),
    "ffn_gate": ("mlp", "gate", "kernel"),
    "ffn_up": ("mlp", "up", "kernel"),
    "ffn_down": ("mlp", "down", "kernel"),
}


def rows_out(name, array):
    """One of our arrays as (out, in), rotary pairs side by side."""
    if array.ndim == 1:
        return array
    if name == "attn_output":
        return array.reshape(-1, array.shape[-1]).T
    array = array.reshape(array.shape[0], -1).T
    if name[-1] in HEADS and name.startswith("attn_"):
        width = CONFIG.head_dim
        order = [h * width + i // 2 + i % 2 * (width // 2)
                 for h in range(HEADS[name[-1]]) for i in range(width)]  # fmt: skip
        array = array[order]
    return array


@pytest.fixture
def written(tmp_path, random):
    """A file, and the parameters that it was made of; `add` adds to it."""
    params = jax.device_get(models.init_params(CONFIG, jax.random.key(3)))
    params = jax.tree.map(
        lambda leaf: leaf + random.normal(size=leaf.shape).astype(np.float32), params
    )

    def write(add=lambda writer: None, kind=Kind.Q8_0, architecture="llama"):
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_block_count(2)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(64)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_rope_freq_base(1e5)
        writer.add_layer_norm_rms_eps(1e-5)

        def tensor(name, array):
            array = np.ascontiguousarray(array, np.float32)
            if array.ndim == 1:
                writer.add_tensor(f"{name}.weight", array)
                return
            data = gguf.quants.quantize(array, kind)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

        tensor("token_embd", params["embedding"])
        tensor("output_norm", params["final_norm"]["scale"])
        for layer in range(2):
            for name, where in LAYER.items():
                leaf = params["layers"]
                for part in where:
                    leaf = leaf[part]
                tensor(f"blk.{layer}.{name}", rows_out(name, leaf[layer]))
        add(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, params

    return write


@pytest.mark.parametrize(("kind", "error"), [(Kind.F16, 2e-3), (Kind.Q4_1, 0.2)])
def test_parameters_come_back_to_the_precision_of_their_kind(written, kind, error):
    path, params = written(kind=kind)
    config, read = hf.load(path)
    assert config == CONFIG
    for (where, leaf), expected in zip(
        jax.tree.leaves_with_path(read), jax.tree.leaves(params), strict=True
    ):
        assert leaf.dtype == np.float32, where
        np.testing.assert_allclose(leaf, expected, atol=error * abs(expected).max())
        if where[-1].key == "scale":
            np.testing.assert_array_equal(leaf, expected)


def test_files_of_others_are_refused(written):
    with pytest.raises(FieldErrors, match=r"'qwen2': its general\.architecture"):
        hf.load(written(architecture="qwen2")[0])


def test_tensors_of_longer_contexts_are_refused(written):
    """Llama 3.1 keeps its rotary scaling in one."""

    def add(writer):
        writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))

    with pytest.raises(
        FieldErrors, match=r"rope_freqs\.weight: this family has no such"
    ):
        hf.load(written(add)[0])


def header(values, *more):
    return b"GGUF" + struct.pack("<IQQ", 3, 0, values) + b"".join(more)


NAME = struct.pack("<Q", 3) + b"abc"


@pytest.mark.parametrize(
    "data",
    [
        header(2**60),
        header(1, struct.pack("<Q", 2**60), b"abc"),
        header(1, NAME, struct.pack("<IIQ", 9, 4, 2**60)),
        header(1, NAME, struct.pack("<IIQ", 9, 8, 2**60)),
        header(1, NAME, struct.pack("<IIQ", 9, 9, 1), bytes(99)),
        header(1, NAME, struct.pack("<IQ", 8, 2**63)),
        header(1, NAME, struct.pack("<I", 77), bytes(99)),
        b"GGML" + bytes(99),
    ],
    ids=["values", "name", "numbers", "texts", "arrays", "text", "kind", "magic"],
)
def test_headers_that_announce_more_than_there_is_are_refused(tmp_path, data):
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(FieldErrors, match="not to be read"):
        hf.load(tmp_path / "model.gguf")


@pytest.mark.parametrize("cut", [3, 20, 200, 3000])
def test_truncated_files_are_refused(written, cut):
    path, _ = written()
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FieldErrors, match="not to be read"):
        hf.load(path)
