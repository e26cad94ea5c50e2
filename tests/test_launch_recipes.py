"""The recipes of examples/: their own commands, by two processes of this machine.

What starts processes on a cluster is replaced by a script that starts them here, with
the variables by which JAX finds the others; all else is the recipe as it stands.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_main_job import SMALL

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CONFIG = str(ROOT / "configs" / "quickstart.yaml")
WORDS = [*SMALL, "--train.steps=1", "--sft.steps=4", "--mesh.data=2", "--mesh.fsdp=2"]
JOBSETS = ["jobset_tpu.yaml", "jobset_gpu.yaml"]

# As SLURM's: every task has its number, all have the nodes and the job.
TASKS = """#!/bin/sh
export SLURM_JOB_ID={job} SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2
export SLURM_STEP_NUM_NODES=1
SLURM_PROCID=0 SLURM_LOCALID=0 {command} &
first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 {command}
second=$?
wait $first && exit $second
"""


def _programs(tmp_path, name, command):
    """A folder with `jaxrl` and a program of a cluster, and the environment for it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    job = os.getpid() % 4096
    scripts = {
        "jaxrl": f'#!/bin/sh\nexec {sys.executable} -m jaxrl_surrogate "$@"\n',
        name: TASKS.format(command=command, job=job),
    }
    for script, text in scripts.items():
        (folder / script).write_text(text)
        (folder / script).chmod(0o755)
    return os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "CONFIG": CONFIG,
        "RUN_DIR": str(tmp_path / "run"),
    }


def _assert_trained(tmp_path, done):
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished after step 1" in done.stdout
    first = tmp_path / "run" / "digests.jsonl"
    second = tmp_path / "run" / "hosts" / "1" / "digests.jsonl"
    assert first.read_text() == second.read_text() != ""


def _run(command, environment):
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.multiprocess
def test_slurm_starts_a_task_for_each_gpu(tmp_path):
    environment = _programs(tmp_path, "srun", '"$@"')
    script = ["bash", EXAMPLES / "slurm_gpu.sbatch", *WORDS]
    _assert_trained(tmp_path, _run(script, environment))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_one_command_starts_all_hosts_of_a_pod(tmp_path):
    """`gcloud ... --command=TEXT` runs the text on every host."""
    environment = _programs(tmp_path, "gcloud", 'sh -c "${8#--command=}"')
    environment |= {"NAME": "slice", "ZONE": "here"}
    script = ["bash", EXAMPLES / "tpu_pod.sh", *WORDS]
    _assert_trained(tmp_path, _run(script, environment))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_jobset_names_its_coordinator(tmp_path):
    container = _container("jobset_gpu.yaml")
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = _programs(tmp_path, "unused", "true")
    environment |= {"COORDINATOR": f"127.0.0.1:{port}", "HOSTS": given["HOSTS"]}
    *shell, text = container["command"]
    text = f"{text} {shlex.join(WORDS)}"
    pods = [
        subprocess.Popen(
            [*shell, text],
            env=environment | {"JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(int(given["HOSTS"]))
    ]
    said = [pod.communicate(timeout=300)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], "\n".join(said)
    done = subprocess.CompletedProcess([], 0, said[0], "")
    _assert_trained(tmp_path, done)


@pytest.mark.parametrize("name", JOBSETS)
def test_jobsets_are_indexed_jobs_of_one_pod_a_host(name):
    jobset = yaml.safe_load((EXAMPLES / name).read_text())
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    container = _container(name)
    given = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    if given:
        assert int(given["HOSTS"]) == spec["completions"]
        names = f"{jobset['metadata']['name']}-{job['name']}-0-0"
        host, _, port = given["COORDINATOR"].partition(":")
        assert host == f"{names}.{jobset['metadata']['name']}"
        assert {"containerPort": int(port)} in container["ports"]


@pytest.mark.parametrize("name", JOBSETS)
def test_manifests_keep_to_the_schema_of_kubernetes(name):
    validate = pytest.importorskip("kubernetes_validate")
    jobset = yaml.safe_load((EXAMPLES / name).read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job["name"]},
        "spec": job["template"]["spec"],
    }
    validate.validate(manifest, validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm_gpu.sbatch"])
def test_scripts_say_what_they_need(name):
    """They are bash, and end with the variable that is missing."""
    environment = {"PATH": os.environ["PATH"]}
    done = _run(["bash", EXAMPLES / name], environment)
    assert done.returncode != 0
    assert re.search(r"(NAME|CONFIG): (the name of|a YAML)", done.stderr)


def test_the_image_copies_what_it_installs():
    text = (EXAMPLES / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
    extras = re.search(r"\.\[(.*?)\]", text)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    for extra in (*extras[1:], "tpu", "cuda"):
        assert f"\n{extra} = [" in project, extra


def _container(name):
    jobset = yaml.safe_load((EXAMPLES / name).read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return container
