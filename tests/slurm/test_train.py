"""slurm/train.slurm on a real Slurm of two nodes: trains, stops in time, continues exactly, fails with a sentence."""

import time

import pytest
import yaml
from patience import PATIENCE
from runs import assert_same_weights, metrics
from slurm_cluster import stop_by_preemption, stop_by_scancel

from open_r1.demo import sums
from open_r1.demo.files import write_jsonl
from open_r1.demo.sums import SUMS
from open_r1.demo.task import conversation

pytestmark = pytest.mark.slurm

COMMON = {
    "model_name_or_path": str(SUMS.base),
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "learning_rate": 1.0e-4,
    "save_steps": 1000,
    "seed": 0,
}
RECIPES = {
    "sft": {**COMMON, "per_device_train_batch_size": 8, "max_steps": 40, "assistant_only_loss": True},
    "grpo": {
        **COMMON,
        "dataset_prompt_column": "problem",
        "reward_funcs": ["accuracy"],
        "num_generations": 4,
        "per_device_train_batch_size": 16,
        "max_completion_length": 60,
        "max_steps": 12,
    },
}


@pytest.fixture
def recipes(project):
    """`recipes/tiny/{sft,grpo}/config_demo.yaml`, for the demo's base model."""
    data = {
        "sft": [{"messages": conversation(p.question, sums.careful(p))} for p in SUMS.problems("pretrain", 200, 0)],
        "grpo": [{"problem": p.question, "answer": p.gold} for p in SUMS.problems("train", 200, 0)],
    }
    for name, recipe in RECIPES.items():
        path = project / "recipes/tiny" / name / "config_demo.yaml"
        path.parent.mkdir(parents=True)
        rows = write_jsonl(project / f"{name}.jsonl", data[name])
        path.write_text(yaml.safe_dump({**recipe, "dataset_name": str(rows), "output_dir": f"runs/{name}"}))
    return project


def steps(folder):
    path = folder / "run/metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_steps(cluster, job, folder, count):
    deadline = time.monotonic() + PATIENCE
    while steps(folder) < count:
        assert time.monotonic() < deadline, cluster.log(job)
        assert cluster.job(job)["JobState"] in ("PENDING", "RUNNING"), cluster.log(job)
        time.sleep(0.2)


def train(cluster, project, task_name, out, *sbatch_options):
    words = ["--nodes=2", *sbatch_options, "slurm/train.slurm", "tiny", task_name, "demo", "ddp"]
    return cluster.submit(*words, f"--output_dir '{out}'", cwd=project)


@pytest.mark.parametrize(("name", "stop"), [("sft", stop_by_scancel), ("grpo", stop_by_preemption)])
def test_a_run_on_two_nodes_that_is_stopped_continues_and_ends_like_an_unbroken_one(cluster, recipes, name, stop):
    whole = train(cluster, recipes, name, "runs/whole run")
    assert cluster.wait(whole) == "COMPLETED", cluster.log(whole)
    assert steps(recipes / "runs/whole run") == RECIPES[name]["max_steps"]

    job = train(cluster, recipes, name, "runs/stopped")
    wait_for_steps(cluster, job, recipes / "runs/stopped", 2)
    stop(cluster, job)
    assert cluster.wait(job) == "COMPLETED", cluster.log(job)
    log = cluster.log(job)
    assert int(cluster.job(job)["Restarts"]) == 1, log
    assert "Continuing from" in log
    assert metrics(recipes / "runs/stopped") == metrics(recipes / "runs/whole run")
    assert_same_weights(recipes / "runs/stopped", recipes / "runs/whole run")


def test_a_failing_step_fails_the_job_with_its_message_in_the_log(cluster, recipes):
    words = ["--model", "tiny", "--task", "sft", "--config", "demo", "--args", "--dataset_name", "missing.jsonl"]
    job = cluster.submit("--nodes=2", "slurm/train.slurm", *words, cwd=recipes)
    assert cluster.wait(job) == "FAILED"
    log = cluster.log(job)
    assert "missing.jsonl" in log
    assert "error: the job failed with exit status 2" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "sft", "dmo", "ddp"], "for tiny there are: recipes/tiny/grpo/config_demo.yaml, recipes/tiny/sft/"),
        (["Qwen3-4B", "sft", "demo", "ddp"], "none for that model; models: Llama-3.2-1B-Instruct, Qwen2.5"),
        (["tiny", "sft", "demo", "zero9"], "--accelerator is zero9: there are ddp, fsdp, zero2, zero3"),
        (["tiny", "sft", "demo", "ddp", "--learning_rat 1"], "unknown option 'learning_rat'. Did you mean"),
        (["tiny", "sft", "demo", "ddp", "--run_name 'x"], "is a closing quote missing?"),
        (
            ["--model", "tiny", "--task", "sft"],
            "config is missing: give --config",
        ),
    ],
)
def test_what_is_not_there_is_said_before_anything_starts(cluster, recipes, words, said):
    job = cluster.submit("slurm/train.slurm", *words, cwd=recipes)
    assert cluster.wait(job) == "FAILED"
    log = cluster.log(job)
    assert log.startswith("error: ") and said in log, log
    assert log.count("\n") == 1 and "srun" not in log


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (None, "slurm/site.env is missing: cp slurm/site.env.example slurm/site.env"),
        ("", "slurm/site.env does not set OPEN_R1_ENVIRONMENT"),
        ("OPEN_R1_ENVIRONMENT=/nowhere", "OPEN_R1_ENVIRONMENT=/nowhere, which holds no bin/python"),
    ],
)
def test_missing_settings_of_the_site_are_named(cluster, recipes, site, said):
    (recipes / "slurm/site.env").unlink()
    if site is not None:
        (recipes / "slurm/site.env").write_text(site)
    job = cluster.submit("slurm/train.slurm", "tiny", "sft", "demo", "ddp", cwd=recipes)
    assert cluster.wait(job) == "FAILED"
    assert said in cluster.log(job)


def test_a_job_without_the_gpus_of_its_site_says_how_to_ask_for_them(cluster, recipes):
    with (recipes / "slurm/site.env").open("a") as site:
        site.write("export SBATCH_GPUS_PER_NODE=8\n")
    job = cluster.submit("slurm/train.slurm", "tiny", "sft", "demo", "ddp", cwd=recipes)
    assert cluster.wait(job) == "FAILED"
    assert "this job has no GPU: run `source slurm/site.env` in the shell before sbatch" in cluster.log(job)


def test_sbatch_takes_the_settings_of_the_site_from_the_shell(cluster, recipes):
    example = (recipes / "slurm/site.env.example").read_text()
    lines = [line for line in example.splitlines() if "GPUS" not in line]  # there are none here
    (recipes / "slurm/site.env").write_text("\n".join(lines).replace("PARTITION=gpu", "PARTITION=high"))
    submit = "source slurm/site.env && sbatch --parsable slurm/train.slurm tiny sft demo ddp"
    job = cluster.run("bash", "-c", submit, cwd=recipes)
    assert cluster.job(job)["Partition"] == "high"
    assert cluster.job(job)["TimeLimit"] == "1-00:00:00"
    cluster.wait(job)


def test_a_job_submitted_from_elsewhere_says_where_to_go(cluster, recipes, tmp_path):
    (tmp_path / "logs").mkdir()
    job = cluster.submit(str(recipes / "slurm/train.slurm"), "tiny", "sft", "demo", "ddp", cwd=tmp_path)
    assert cluster.wait(job) == "FAILED"
    assert "is not the folder of Open R1: cd there" in cluster.log(job)
