"""`jaxrl plan`: what it says, that its advice holds, and what it refuses."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.lab.plan import topology

pytestmark = pytest.mark.both_pythons

CONFIG = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
# One layer and few tokens: quick to compile.
SMALL = [
    "--model.preset=nano",
    "--model.overrides.num_layers=1",
    "--rollout.max_completion_length=8",
    "--rollout.prompts_per_step=16",
]
TPU = pytest.mark.skipif(
    not topology.available(), reason="XLA's TPU compiler is not installed"
)


def _plan(capsys, *words):
    status = cli.main(["plan", CONFIG, *words])
    return status, capsys.readouterr().out


def test_a_plan_of_this_machine_fits_and_says_so(capsys):
    status, said = _plan(capsys, *SMALL, "--mesh.fsdp=2", "--mesh.tensor=2", "--json")
    found = json.loads(said)
    assert status == 0 and found["fits"]
    assert found["mesh"] == {
        "data": 2, "fsdp": 2, "expert": 1, "sequence": 1, "tensor": 2,
    }  # fmt: skip
    assert found["unintended_collectives"] == {"rollout": [], "update": []}
    for phase in ("rollout", "update"):
        part = found["phases"][phase]
        assert part["flops"] > 0 and part["hbm_bytes"] > 0
        assert part["peak_bytes"] == sum(part["memory"].values())
        assert {axis for c in part["collectives"] for axis in c["axes"]} <= {
            "data", "fsdp", "tensor",
        }  # fmt: skip


@pytest.mark.slow
def test_what_is_proposed_for_a_plan_that_does_not_fit_fits(capsys, monkeypatch):
    words = [*SMALL, "--mesh.data=8"]
    _, said = _plan(capsys, *words, "--json")
    whole = topology.get("cpu")
    usable = int(0.6 * json.loads(said)["peak_bytes"])
    tight = dataclasses.replace(
        whole, chip=dataclasses.replace(whole.chip, usable_bytes=usable)
    )
    monkeypatch.setattr(topology, "get", lambda name: tight)
    status, said = _plan(capsys, *words, "--remedies=2")
    assert status == 1
    assert re.search(r"DOES NOT FIT: the (update|rollout) lacks", said)
    proposed = re.search(r"this fits, it was compiled: (.*)", said)[1].split()
    # The words that it prints are words that it takes, and give another mesh or slices.
    status, again = _plan(capsys, *words, *proposed, "--shardings")
    assert status == 0 and again != _plan(capsys, *words, "--shardings")[1]


@pytest.mark.slow
def test_a_search_ranks_what_it_compiled(capsys):
    status, said = _plan(capsys, *SMALL, "--search=2", "--json")
    tried = json.loads(said)
    assert status == 0 and len(tried) == 2
    peaks = [each["plan"]["peak_bytes"] for each in tried]
    assert peaks == sorted(peaks)  # on a CPU, without times


def test_shardings_are_printed_without_compiling(capsys):
    status, said = _plan(capsys, *SMALL, "--shardings", "--mesh.fsdp=4")
    assert status == 0
    for part in ("layers/attention/q/kernel", "weights of the rollout", "prompts/keys"):
        assert part in said


def test_an_array_is_drawn_as_it_lies(capsys):
    words = [*SMALL, "--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2"]
    status, said = _plan(capsys, *words, "--draw", "trainable/layers/mlp/up")
    assert status == 0
    assert said.splitlines() == [
        "trainable/layers/mlp/up/kernel: 1x64x128; 64 in 2 over fsdp; "
        "128 in 2 over tensor",
        "+-----+-----+",
        "| 0,4 | 1,5 |",
        "+-----+-----+",
        "| 2,6 | 3,7 |",
        "+-----+-----+",
    ]
    _, said = _plan(capsys, *words, "--draw", "final_norm")
    assert "in 2 over fsdp" in said
    _, said = _plan(capsys, *words, "--draw", "cache/prompts/values")
    assert said.startswith("cache/prompts/values: ") and "over data+fsdp" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "v9:2x2"], "topology='v9:2x2': expected KIND:SIZES"),
        (["--topology", "v5e:4"], "topology='v5e:4': expected 2 sizes"),
        (["--mesh.data=3"], "a mesh of 3 devices"),
        (["--rollout.prompts_per_step=6"], "6 prompts are not a multiple of the 8"),
        (["--mesh.slices=2"], "slices=2"),
        (["--rollout.group=4"], "rollout.group"),
        (["--draw", "nothing"], "draw='nothing': in the name of no array"),
    ],
)
def test_what_cannot_be_planned_is_refused(capsys, words, message):
    assert cli.main(["plan", CONFIG, *words]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


@TPU
def test_a_slice_of_a_pod_needs_no_pod(capsys):
    status, said = _plan(
        capsys, *SMALL, "--topology", "2*v5e:2x2", "--mesh.data=2", "--mesh.fsdp=4",
        "--mesh.slices=2", "--optimizer.offload=true",
    )  # fmt: skip
    assert status == 0
    assert "8 x TPU v5e" in said and "in its host's memory" in said
    assert "seconds" in said and "fits; a step takes about" in said
