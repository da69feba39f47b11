"""slurm/generate.slurm and serve.slurm with --ray: a Ray cluster of the two nodes, and a server that needs both."""

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest
from datasets import load_dataset
from slurm_cluster import processes, wait_until

from open_r1.demo.files import write_jsonl

pytestmark = pytest.mark.slurm

RAY = Path(__file__).parents[2] / ".venv-ray"
STAND_IN = Path(__file__).with_name("ray_stand_in")
TOKEN = "7b" * 32


@pytest.fixture
def site(cluster, project):
    """A project whose servers run in an environment with Ray, where `vllm` is the stand-in."""
    if not (RAY / "bin/ray").exists():
        pytest.fail(f"there is no {RAY}/bin/ray: make test-slurm installs it.")
    with (project / "slurm/site.env").open("a") as lines:
        lines.write(f"export OPEN_R1_VLLM_ENVIRONMENT={RAY} RAY_TMPDIR={cluster.folder}\n")
        lines.write(f"export PYTHONPATH={STAND_IN}:$PYTHONPATH\n")
    write_jsonl(project / "problems.jsonl", [{"problem": f"{i}+1", "answer": str(i + 1)} for i in range(12)])
    return project


def test_generation_over_ray_uses_both_nodes_and_leaves_nothing_behind(cluster, site):
    words = ["--hf-dataset", "problems.jsonl", "--prompt-column", "problem", "--model", "m", "--ray"]
    job = cluster.submit("--nodes=2", "slurm/generate.slurm", *words, cwd=site)
    assert cluster.wait(job) == "COMPLETED", logs(cluster, site, job)
    found = load_dataset(str(site / "data/problems.jsonl-m"), split="train")
    assert len(found) == 12
    nodes = {node for row in found["completion"] for node in row.split()}
    assert len(nodes) == 2
    wait_until(lambda: not processes(job), lambda: processes(job))


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_server_over_ray_shows_its_dashboard_and_ends_when_a_part_of_it_dies(cluster, site, victim):
    with (site / "slurm/site.env").open("a") as lines:
        lines.write(f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN={TOKEN}\n")
    job = cluster.submit("--nodes=2", "slurm/serve.slurm", "--model", "m", "--ray", cwd=site)
    wait_until(lambda: "Serving m at" in cluster.log(job), lambda: logs(cluster, site, job))
    (dashboard,) = re.findall(r"Ray's dashboard is at (\S+) on", cluster.log(job))
    assert b"<html" in fetch(dashboard)
    nodes = json.loads(fetch(f"{dashboard}/api/v0/nodes"))["data"]["result"]["result"]
    assert [node["state"] for node in nodes] == ["ALIVE"] * 2
    node = "n2" if victim == "raylet" else "n1"
    (process,) = processes(job, victim, node)
    os.kill(process, signal.SIGKILL)
    assert cluster.wait(job) == "FAILED", logs(cluster, site, job)
    assert f"error: Ray on node {'01'[node == 'n2']} (" in logs(cluster, site, job)
    wait_until(lambda: not processes(job), lambda: processes(job))


def test_a_server_over_ray_ends_with_its_job(cluster, site):
    job = cluster.submit("--nodes=2", "slurm/serve.slurm", "--model", "m", "--ray", cwd=site)
    wait_until(lambda: "Serving m at" in cluster.log(job), lambda: logs(cluster, site, job))
    cluster.run("scancel", job)
    assert cluster.wait(job) == "CANCELLED"
    wait_until(lambda: not processes(job), lambda: processes(job))


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.addheaders = [("Authorization", f"Bearer {TOKEN}")]
    with opener.open(url, timeout=30) as reply:
        return reply.read()


def logs(cluster, project, job):
    """The job's own log and its server's."""
    return cluster.log(job) + "".join(path.read_text() for path in project.glob(f"logs/*-{job}-server.out"))
