"""Writing checkpoints: the bits that were read, and never over what is there."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrl_surrogate import models, parallel
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.models import hf
from jaxrl_surrogate.parallel import partition

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())


def tensors(path):
    found = [load_file(file) for file in path.glob("*.safetensors")]
    return {name: array for part in found for name, array in part.items()}


def assert_same(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(
            array.view(np.uint8), other[name].view(np.uint8), err_msg=name
        )


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_is_written_bit_by_bit(name, tmp_path):
    """With the config of `like`, and with the family's own."""
    config, params = hf.load(FIXTURES / name)
    hf.save(tmp_path / "like", config, params, like=FIXTURES / name)
    hf.save(tmp_path / "own", config, params, max_file_bytes=5000)
    before = tensors(FIXTURES / name)
    for path in (tmp_path / "like", tmp_path / "own"):
        assert_same(tensors(path), before)
        assert hf.read_config(path) == config
        assert hf.load(path)[0] == config
    assert len(list((tmp_path / "own").glob("*.safetensors"))) > 1
    described = json.loads((tmp_path / "like" / "config.json").read_text())
    stored = json.loads((FIXTURES / name / "config.json").read_text())
    assert described.pop("torch_dtype") == stored.pop("dtype")
    assert described == stored


def test_eight_devices_write_the_bits_of_one(tmp_path):
    def shardings(config):
        mesh = parallel.make_mesh(parallel.MeshConfig(data=2, fsdp=2, tensor=2))
        abstract = models.abstract_params(config)
        return partition.param_shardings(mesh, models.logical_axes(config), abstract)

    config, params = hf.load(FIXTURES / "gemma3", shardings=shardings)
    hf.save(tmp_path / "new", config, params)
    assert_same(tensors(tmp_path / "new"), tensors(FIXTURES / "gemma3"))


@pytest.fixture
def nano():
    config = models.presets.get("nano", num_layers=1, compute_dtype="bfloat16")
    return config, models.init_params(config, jax.random.key(0))


def test_a_decoder_of_our_own_is_written_as_its_family(nano, tmp_path):
    config, params = nano
    more = {"max_position_embeddings": 77, "eos_token_id": 1}
    hf.save(tmp_path / "new", config, params, dtype="bfloat16", hf_config=more)
    described = json.loads((tmp_path / "new" / "config.json").read_text())
    assert described["architectures"] == ["Qwen3ForCausalLM"]
    assert described["torch_dtype"] == "bfloat16"
    assert {key: described[key] for key in more} == more
    again, read = hf.load(tmp_path / "new")
    assert again == models.presets.get("nano", num_layers=1)
    half = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params)
    jax.tree.map(np.testing.assert_array_equal, read, half)
    assert "lm_head.weight" not in tensors(tmp_path / "new")


def test_tokenizer_and_generation_config_are_copied(tmp_path):
    config, params = hf.load(FIXTURES / "qwen2")
    old = tmp_path / "old"
    hf.save(old, config, params)
    files = {"tokenizer.json": "{}", "chat_template.jinja": "x", "notes.txt": "mine"}
    for name, text in files.items():
        (old / name).write_text(text)
    hf.save(
        tmp_path / "new", config, params, like=old,
        files={"chat_template.jinja": "y", "README.md": "z"},
    )  # fmt: skip
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json"),
        *("chat_template.jinja", "README.md"),
    }
    assert (tmp_path / "new" / "chat_template.jinja").read_text() == "y"
    for name in ("config.json", "../x", "model.safetensors"):
        with pytest.raises(FieldErrors, match="files="):
            hf.save(tmp_path / "more", config, params, files={name: ""})


def test_nothing_that_is_there_is_touched(nano, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file", "link"):
        with pytest.raises(FieldErrors, match="something is there already"):
            hf.save(tmp_path / name, *nano)
    hf.save(tmp_path / "empty", *nano)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"full", "file", "link", "empty"}


def test_parameters_and_models_of_other_shapes_are_refused(nano, tmp_path):
    config, params = nano
    with pytest.raises(FieldErrors, match=r"params='embedding': expected the param"):
        hf.save(tmp_path / "a", config, params | {"embedding": params["embedding"].T})
    with pytest.raises(FieldErrors, match=r"describes another decoder.*num_layers \(1"):
        hf.save(tmp_path / "a", config, params, like=FIXTURES / "qwen3")
    strange = models.presets.get("nano", scale_embeddings=True)
    with pytest.raises(FieldErrors, match="no family of models"):
        hf.save(tmp_path / "a", strange, params)
    assert not any(tmp_path.iterdir())


def test_a_kill_leaves_no_directory_that_could_be_taken_for_whole(tmp_path):
    """Killed while it writes the config, after the tensors."""
    program = """
        import os, signal, sys
        import jax
        from jaxrl_surrogate import models
        from jaxrl_surrogate.models.hf import writer
        config = models.presets.get("nano", num_layers=1)
        params = models.init_params(config, jax.random.key(0))
        writer._write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        writer.save(sys.argv[1], config, params)
    """
    target = tmp_path / "new"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(target)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".new.unfinished-")
    assert (left / "model.safetensors").exists()
