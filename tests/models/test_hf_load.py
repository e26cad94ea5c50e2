"""Reading checkpoints: who reads what, and which directories are refused."""

import json
import shutil
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrl_surrogate import models, parallel
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.models import hf
from jaxrl_surrogate.models.hf.safetensors_directory import SafetensorsDirectory
from jaxrl_surrogate.parallel import partition

FIXTURES = Path(__file__).parent / "fixtures"
GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture
def copy(tmp_path):
    """From a fixture's name to a copy of it that may be spoilt."""

    def made(name, spoil=lambda tensors: None, **config):
        path = tmp_path / name
        shutil.copytree(FIXTURES / name, path)
        file = path / "model.safetensors"
        if file.exists():
            tensors = load_file(file)
            spoil(tensors)
            save_file(tensors, file)
        stored = json.loads((path / "config.json").read_text()) | config
        (path / "config.json").write_text(json.dumps(stored))
        return path

    return made


@pytest.fixture
def reads(monkeypatch):
    """Every read: the tensor's name, and the numbers that were read."""
    made, read = [], SafetensorsDirectory.read

    def recorded(self, name, index):
        block = read(self, name, index)
        made.append((name, block.size))
        return block

    monkeypatch.setattr(SafetensorsDirectory, "read", recorded)
    return made


def shardings(**axes):
    def of(config):
        mesh = parallel.make_mesh(parallel.MeshConfig(**axes))
        abstract = models.abstract_params(config)
        return partition.param_shardings(mesh, models.logical_axes(config), abstract)

    return of


@pytest.mark.parametrize("name", ["llama2", "qwen3", "qwen3_moe", "olmo2"])
def test_eight_devices_hold_the_bits_of_one_and_read_only_their_own(name, reads):
    _, one = hf.load(FIXTURES / name)
    whole = dict(reads)
    reads.clear()
    axes = {"expert": 2} if name == "qwen3_moe" else {"data": 2}
    _, eight = hf.load(FIXTURES / name, shardings=shardings(fsdp=2, tensor=2, **axes))
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert len(eight["embedding"].sharding.device_set) == 8
    embedding = dict(reads)["model.embed_tokens.weight"]
    assert embedding == whole["model.embed_tokens.weight"] // 4
    # No number is read twice but those of which two devices need a copy: key-value
    # heads that the mesh does not divide, and the norms, which are small.
    matrices = {n for n, size in whole.items() if size > 64}
    read = sum(size for n, size in reads if n in matrices)
    assert read == sum(whole[n] for n in matrices)


def test_layers_of_two_dtypes_become_the_wider(copy):
    def widen(tensors):
        tensors[GATE] = tensors[GATE].astype(np.float32)

    _, params = hf.load(copy("mistral", widen))
    _, before = hf.load(FIXTURES / "mistral")
    gate = params["layers"]["mlp"]["gate"]["kernel"]
    assert gate.dtype == np.float32
    assert params["layers"]["mlp"]["up"]["kernel"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        gate, before["layers"]["mlp"]["gate"]["kernel"].astype(np.float32)
    )


def refused(path):
    with pytest.raises(FieldErrors) as error:
        hf.load(path)
    return str(error.value).splitlines()


def test_all_that_is_wrong_with_tensors_is_said_at_once_and_none_is_read(copy, reads):
    def spoil(tensors):
        del tensors["model.norm.weight"]
        tensors[GATE] = tensors[GATE][:5].copy()
        tensors["model.layers.0.mlp.extra.weight"] = np.zeros(3, np.float32)
        tensors["model.layers.1.mlp.extra.weight"] = np.zeros(3, np.float32)
        tensors["lm_head.weight"] = np.zeros((32, 16), np.int8)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4)

    lines = refused(copy("mistral", spoil))
    assert sorted(line.split(":")[0] for line in lines) == sorted(
        [
            "model.norm.weight",
            "model.layers.{layer}.mlp.gate_proj.weight='(5, 16)'",
            "model.layers.0.mlp.extra.weight and 1 like it",
            "lm_head.weight='I8'",
        ]
    )
    assert not reads


def test_wrong_keys_and_dtypes_are_said_together(copy):
    def spoil(tensors):
        tensors[GATE] = np.zeros((24, 16), np.int32)

    path = copy("mistral", spoil, hidden_act="relu", vocab_size=None)
    lines = refused(path)
    for start, line in zip(("vocab_size=", "hidden_act=", GATE), lines, strict=True):
        assert line.startswith(start)


def test_a_config_of_more_layers_than_the_files_hold_is_refused(copy):
    (line,) = refused(copy("mistral", num_hidden_layers=5000))
    assert line.startswith("num_hidden_layers=5000: it asks for 45003 tensors")


def test_numbers_that_are_not_finite_are_said(copy):
    def spoil(tensors):
        tensors[GATE][3, 3] = np.nan
        tensors["model.embed_tokens.weight"][-1, -1] = np.inf

    lines = refused(copy("mistral", spoil))
    assert [line.split("=")[1].split(":")[0].strip("'") for line in lines] == [
        "model.embed_tokens.weight",
        GATE,
    ]


def test_a_head_beside_tied_embeddings_must_be_the_embedding(copy):
    def head(number):
        def spoil(tensors):
            table = tensors["model.embed_tokens.weight"].copy()
            table[7, 7] += number
            tensors["lm_head.weight"] = table

        return spoil

    config, params = hf.load(copy("qwen2", head(0)))
    assert config.tie_embeddings
    assert "head" not in params
    shutil.rmtree(copy("smollm2").parent / "qwen2")
    (line,) = refused(copy("qwen2", head(1)))
    assert line.startswith("lm_head.weight: it differs from model.embed_tokens.weight")


def header(tensors, body=b""):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + body


def pair(second):
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return header({"a": one, "b": one | {"data_offsets": second}}, bytes(12))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"12345",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2**63 + 5) + b"{}",
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        header(
            {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
            bytes(8),
        ),
        pair([4, 12]),
        pair([0, 8]),
        header({"a": 1}),
        b"<html>not found</html>" * 9,
    ],
    ids=[
        "empty",
        "short",
        "huge_header",
        "negative_header",
        "truncated",
        "shape",
        "overflow",
        "overlapping",
        "same",
        "not_a_tensor",
        "html",
    ],
)
def test_hostile_files_are_refused_by_name(copy, data):
    path = copy("mistral")
    (path / "model.safetensors").write_bytes(data)
    (line,) = refused(path)
    assert line.startswith(f"{path / 'model.safetensors'}: not to be read: ")


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (
            {"weight_map": {"a": "../../etc/passwd"}},
            "'../../etc/passwd': expected names",
        ),
        ({"weight_map": {"a": "/etc/x.safetensors"}}, "names of .safetensors files"),
        ({"weight_map": {"a": "b/../x.safetensors"}}, "names of .safetensors files"),
        ({"weight_map": {"a": 3}}, "'3': expected names of .safetensors files"),
        ({"weight_map": {"a": "none.safetensors"}}, "there is no such file"),
        ({"weight_map": {}}, "weight_map"),
        ([], "expected a JSON object"),
    ],
)
def test_an_index_names_files_beside_it_and_no_others(copy, listed, said):
    path = copy("mistral")
    (path / "model.safetensors.index.json").write_text(json.dumps(listed))
    (line,) = refused(path)
    assert said in line


def test_an_index_and_its_files_have_to_agree(copy):
    path = copy("qwen3")
    index = path / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["model.more.weight"] = "model-00001-of-00004.safetensors"
    index.write_text(json.dumps(listed))
    (line,) = refused(path)
    assert "'model.more.weight': the index lists tensors that no file has" in line
    first = path / "model-00001-of-00004.safetensors"
    shutil.copy(first, path / "model-00002-of-00004.safetensors")
    assert "another file has this tensor too" in refused(path)[0]


def test_directories_that_hold_something_else_say_what(tmp_path):
    assert "there is no such file" in refused(tmp_path)[0]
    assert "expected a directory" in refused(tmp_path / "none")[0]
    (tmp_path / "config.json").write_text("{")
    assert "config.json: not to be read" in refused(tmp_path)[0]
    shutil.copy(FIXTURES / "mistral" / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (line,) = refused(tmp_path)
    assert "pytorch_model.bin: have transformers save it as safetensors" in line


def test_the_config_alone_needs_no_tensor(reads):
    config = hf.read_config(FIXTURES / "gemma3")
    assert (config.num_layers, config.global_every) == (4, 3)
    assert not reads
