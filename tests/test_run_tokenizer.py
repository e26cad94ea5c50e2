"""The tokenizer that a run trains for itself: once, under its lock, by one host."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from test_multi_host import _port

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.storage.lock import RunLock
from jaxrl_surrogate.tasks import Problem, tokenizers

CONFIG = """
model: {preset: nano}
task: {options: {min_digits: 1, max_digits: 1}, tokenizer: "bpe:270"}
rollout: {prompts_per_step: 8, group_size: 2}
train: {steps: 0}
eval: {prompts: 0}
log: {tensorboard: false}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text(f"run_dir: {tmp_path}/run\n{CONFIG}")
    return file


def test_it_is_not_trained_while_another_process_has_the_run(path, tmp_path, capsys):
    run = tmp_path / "run"
    with RunLock(run):
        assert cli.main(["train", str(path)]) == 2
        assert "in use by process" in capsys.readouterr().err
        assert sorted(file.name for file in run.iterdir()) == ["lock"]


def test_a_refused_config_trains_none(path, tmp_path):
    assert cli.main(["train", str(path), "--objective.name=rlo"]) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["eval", "sample", "verify"])
def test_readers_train_none(path, tmp_path, command, capsys):
    """The run lost it, or its directory was copied without it."""
    run = tmp_path / "run"
    assembly.open_directory(cli.load_config(path, []))
    (run / "checkpoints" / "update" / "1").mkdir(parents=True)
    (run / "digests.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    before = sorted(run.rglob("*"))
    words = ["--eval.prompts=8"] if command != "verify" else []
    assert cli.main([command, str(run), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxrl: task.tokenizer='bpe:270'")
    assert str(run / "tokenizer.json") in line
    assert sorted(run.rglob("*")) == before


def test_a_damaged_one_is_made_again_when_it_is_removed(path, tmp_path, capsys):
    """A byte that is another may leave a tokenizer with other merges."""
    run = tmp_path / "run"
    built = assembly.build_run(cli.load_config(path, []), lambda: None)
    task = built.collector.verification.task
    file, beside = run / "tokenizer.json", run / "tokenizer.json.sha256"
    whole = {part: part.read_bytes() for part in (file, beside)}

    def make():
        return assembly.build_tokenizer("bpe:270", task, run, lambda: None)

    for part, content in whole.items():
        middle = len(content) // 3
        flipped = (
            content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )
        for damaged in (flipped, content[:middle], b"", b"\xff" + content[1:]):
            part.write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"is damaged. Remove {file} to"):
                make()
            file.unlink()
            if damaged == flipped and part is beside:
                with pytest.raises(ValueError, match=rf"remove {beside} to go on"):
                    make()
                beside.unlink()
            make()
            assert {part: part.read_bytes() for part in whole} == whole
    assert sorted(run.iterdir()) == sorted(whole)


def test_a_failure_leaves_nothing_behind(tmp_path):
    """Not a file that a later start would take for whole, nor one that stays."""

    def texts():
        yield "1+1="
        raise RuntimeError("the source of texts ended")

    with pytest.raises(Exception, match="the source of texts ended"):
        tokenizers.train_bpe(texts(), 270, tmp_path / "run" / "tokenizer.json")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    (tmp_path / "taken" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(OSError):
        tokenizers.train_bpe(["1+1="], 270, tmp_path / "taken" / "tokenizer.json")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


class Watched(Sequence):
    """Problems that say which host looked at them."""

    def __init__(self, directory, host):
        self.directory, self.host = directory, host

    def __len__(self):
        return 50

    def __getitem__(self, index):
        (self.directory / f"read_by_{self.host}").touch()
        return Problem(f"{index}+{index}=", answer=2 * index)


HOST = """
import sys
from pathlib import Path
from types import SimpleNamespace
from jaxrl_surrogate import assembly
from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.storage.lock import RunLock
from test_run_tokenizer import Watched

port, host, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
hosts.start(hosts.HostsConfig(f"127.0.0.1:{port}", 2, host, 30))
lock = RunLock(directory / "run")
task = SimpleNamespace(train=Watched(directory, host))
found = assembly.build_tokenizer("bpe:270", task, directory / "run", lock.__enter__)
print(found.encode("12+12="))
hosts.wait_for_all("end")
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_of_several_hosts_the_first_trains_it(tmp_path):
    port = str(_port())
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, port, str(host), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    ids = [out.splitlines()[-1] for out, _ in said]
    assert ids[0] == ids[1] and ids[0].startswith("[")
    assert [file.name for file in tmp_path.glob("read_by_*")] == ["read_by_0"]
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["lock", "tokenizer.json", "tokenizer.json.sha256"]
