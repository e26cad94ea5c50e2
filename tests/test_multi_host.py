"""Several processes as hosts: the run of one process; a lost host is noticed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.parallel import hosts

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
MESH = ["--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2"]


def _port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _start(directory, number, *more):
    """One process a host, eight devices in all; what they say goes to files."""
    where, processes = f"127.0.0.1:{_port()}", []
    directory.mkdir(exist_ok=True)
    for index in range(number):
        found = [f"--hosts.coordinator={where}", f"--hosts.number={number}"]
        found += [f"--hosts.index={index}", "--hosts.timeout_s=10"]
        devices = f"--xla_force_host_platform_device_count={8 // number}"
        said = (directory / f"said.{index}").open("w")
        words = [f"--run_dir={directory}", *SMALL, *MESH, *more]
        words += found if number > 1 else []
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "jaxrl_surrogate", "train", CONFIG, *words],
                env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices},
                stdout=said,
                stderr=said,
            )
        )
    return processes


def _finish(processes, directory):
    for process in processes:
        process.wait(timeout=600)
    said = [(directory / f"said.{i}").read_text() for i in range(len(processes))]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(said)


def _rows(path):
    return {row.pop("step"): row for row in map(json.loads, path.open())}


def _params(directory):
    run = assembly.build_run(cli.load_config(directory, []))
    params, step = loop.newest_params(run, pytest.fail)
    return step, jax.tree.map(np.asarray, params)


def _assert_near(params, others):
    """Equal to rounding, but where Adam makes whole steps of next to no gradient."""
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True):
        assert np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(b)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one") / "run"
    _finish(_start(directory, 1), directory)
    return directory


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [2, 4])
def test_hosts_make_the_run_of_one_process(one, tmp_path, number):
    directory = tmp_path / "run"
    _finish(_start(directory, number), directory)
    expected, found = (_rows(d / "digests.jsonl") for d in (one, directory))
    assert found.keys() == expected.keys() == set(range(7))
    for step in range(1, 7):
        for phase, names in (
            ("rollout", ("prompt_tokens", "tokens", "lengths")),
            ("verification", ("rewards", "reward_mask")),
        ):
            for name in names:
                assert found[step][phase][name] == expected[step][phase][name]
    # Every host keeps the same record.
    for index in range(1, number):
        assert _rows(directory / "hosts" / str(index) / "digests.jsonl") == found
    one_step, one_params = _params(one)
    step, params = _params(directory)  # read by one process of eight devices
    assert step == one_step == 6
    _assert_near(params, one_params)
    # Stored by several, gone on with by fewer, then by one.
    for fewer, steps in ((number // 2, 7), (1, 8)):
        _finish(_start(directory, fewer, f"--train.steps={steps}"), directory)
        said = (directory / "said.0").read_text()
        assert f"resumed after step {steps - 1}" in said
    assert _rows(directory / "metrics.jsonl").keys() == set(range(9))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_lost_host_ends_the_others_and_the_run_goes_on(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _finish(_start(whole, 2), whole)
    first, second = _start(killed, 2)
    while not (killed / "checkpoints" / "update" / "2").is_dir():
        assert first.poll() is None, (killed / "said.0").read_text()
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    lost = time.monotonic()
    first.wait(timeout=60)
    assert time.monotonic() - lost < 60
    assert first.returncode != 0
    said = (killed / "said.0").read_text()
    assert re.search(r"task:1\b|unhealthy \(stopped sending heartbeats\):\n1\n", said)
    second.wait()
    # The first one is the coordinator; it can be lost too.
    first, second = _start(killed, 2)
    while not (killed / "checkpoints" / "update" / "4").is_dir():
        assert first.poll() is None, (killed / "said.0").read_text()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    lost = time.monotonic()
    second.wait(timeout=60)
    assert time.monotonic() - lost < 60
    assert second.returncode != 0
    assert re.search(r"coordinat(or|ion service)", (killed / "said.1").read_text())
    first.wait()
    _finish(_start(killed, 2), killed)
    assert _rows(killed / "digests.jsonl") == _rows(whole / "digests.jsonl")


def test_hosts_words_are_taken_off_and_checked():
    words = ["--seed=1", "--hosts.coordinator=a:1", "--hosts.number=2"]
    config, rest = hosts.take([*words, "--hosts.index=1"])
    assert rest == ["--seed=1"]
    assert (config.coordinator, config.number, config.index) == ("a:1", 2, 1)
    assert hosts.take([]) == (hosts.HostsConfig(), [])
    for wrong, message in (
        (words, "hosts.index=-1: expected"),
        (["--hosts.number=2"], "hosts.coordinator: expected address"),
        (["--hosts.numbr=2"], "--hosts.numbr=2: expected"),
        (["--hosts.number=x"], "hosts.number='x': expected an integer"),
        (["--hosts.timeout_s=1"], "hosts.timeout_s=1: expected 5"),
    ):
        with pytest.raises(ValueError, match=message):
            hosts.take(wrong)


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes", False),
    ],
)
def test_who_fails_leaves_and_who_lost_a_host_waits_for_its_name(
    monkeypatch, capsys, message, lost
):
    slept, ended = [], []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(hosts.time, "sleep", slept.append)
    monkeypatch.setattr(hosts.os, "_exit", ended.append)
    hosts.leave(1, jax.errors.JaxRuntimeError(message))
    assert ended == [1] and bool(slept) == lost
    said = capsys.readouterr().err
    assert ("does not answer" in said) == lost and message in said
    hosts.leave(3)
    assert ended == [1, 3]


def test_one_host_needs_nothing():
    assert hosts.is_first()
    assert hosts.any_of(True) and not hosts.any_of(False)
    array = np.arange(3)
    assert hosts.added(array) is array
    hosts.wait_for_all("nowhere")
