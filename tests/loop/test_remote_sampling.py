"""A run whose completions come over HTTP is the run that samples by itself."""

import json

import jax
from sampler_server import serving
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.rollout import http_sampler
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.training.state import abstract_params

CONFIG = "configs/quickstart.yaml"
WORDS = [*SMALL, "--train.steps=3", "--checkpoint.every=9"]


def _train(directory, *words):
    return cli.main(["train", CONFIG, f"--run_dir={directory}", *WORDS, *words])


def _rows(directory, name, *left_out):
    lines = (directory / f"{name}.jsonl").read_text().splitlines()
    rows = map(json.loads, lines)
    return [{k: v for k, v in row.items() if k not in left_out} for row in rows]


CLOCKS = ("seconds", "seconds_update", "tokens_per_second", "compiles")


def test_a_run_over_http_has_the_bits_of_a_local_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(http_sampler, "FIRST_WAIT_S", 0.01)
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert _train(local) == 0
    run = assembly.build_run(cli.load_config(local, []))
    shardings = jax.tree.map(
        lambda leaf: leaf.sharding, abstract_params(run.model, run.mesh)
    )

    with serving(
        run.collector.sampler, lambda params: jax.device_put(params, shardings)
    ) as server:
        url = f"--rollout.sampler={server.url}"

        def breaks_in_step_3(path, answer):
            if path == "/sample" and server.loads[-1] == 2:
                raise ConnectionError
            return answer

        server.spoil = breaks_in_step_3
        assert _train(remote, url) == 3
        told = capsys.readouterr().err
        assert told.startswith(f"jaxrl: {server.url}/sample: ") and "5 of 5" in told
        # What was trained is stored, though it was not yet time.
        assert StateReader(remote).steps() == [0, 2]
        server.spoil = None
        assert _train(remote, url) == 0
        assert server.loads[:4] == [0, 1, 2, 2]
        assert cli.main(["verify", str(remote), "--from", "0"]) == 0
    for name, left_out in (("metrics", CLOCKS), ("evaluations", ()), ("groups", ())):
        assert _rows(remote, name, *left_out) == _rows(local, name, *left_out), name
    arrays = [_rows(place, "digests", "seal") for place in (local, remote)]
    phases = ("rollout", "verification", "update")
    for one, other in zip(*arrays, strict=True):
        assert all(one.get(phase) == other.get(phase) for phase in phases)
    assert arrays[0][-1]["state"] == arrays[1][-1]["state"]
    assert arrays[0][0]["state"] != arrays[0][-1]["state"]
    for row in _rows(remote, "metrics")[1:]:
        assert row["sampler_trainer_logprob_diff_max"] < 1e-4
