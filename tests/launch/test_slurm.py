"""What the job scripts make of their words; on a real Slurm they are run in `tests/slurm`."""

import sys

import pytest

from open_r1.errors import UserError
from open_r1.launch.slurm import job as job_module
from open_r1.launch.slurm.evaluate import evaluation_words
from open_r1.launch.slurm.generate import client_options
from open_r1.launch.slurm.job import Job, current_job, finish
from open_r1.launch.slurm.server import ServerJobOptions, ServerPlan, check_installed, parallel_sizes, server_command
from open_r1.launch.slurm.train import training_words

RECIPE = "recipes/SmolLM2-135M-Instruct/grpo/config_demo.yaml"
LAUNCH = ["open-r1", "launch", "--accelerator", "zero2"]
NAMED = ["--model", "SmolLM2-135M-Instruct", "--task", "grpo", "--config", "demo", "--accelerator", "zero2"]
POSITIONAL = ["SmolLM2-135M-Instruct", "grpo", "demo", "zero2"]


@pytest.mark.parametrize(
    "words",
    [
        [*POSITIONAL, "--learning_rate 2e-6 --run_name 'two words'"],
        [*NAMED, "--args", "--learning_rate", "2e-6", "--run_name", "two words"],
        [*NAMED, "--args", "--learning_rate 2e-6 --run_name 'two words'"],
        [*NAMED, "--args=--learning_rate 2e-6 --run_name 'two words'"],
    ],
)
def test_options_reach_training_as_they_were_meant_in_every_form(words):
    assert training_words(words) == [*LAUNCH, RECIPE, "--learning_rate", "2e-6", "--run_name", "two words"]


def test_the_readme_of_open_r1_works_as_it_stands():
    words = [
        "--model",
        "Qwen2.5-1.5B-Instruct",
        "--task",
        "grpo",
        "--config",
        "demo",
        "--accelerator",
        "zero2",
        "--dp",
        "4",
        "--tp",
        "1",
    ]
    recipe = "recipes/Qwen2.5-1.5B-Instruct/grpo/config_demo.yaml"
    assert training_words(words) == [*LAUNCH, "--dp", "4", "--tp", "1", recipe]
    assert training_words(["Qwen2.5-1.5B-Instruct", "grpo", "demo", "zero2"]) == [*LAUNCH, recipe]
    assert training_words(["Qwen2.5-1.5B-Instruct", "grpo", "demo", "zero2", ""]) == [*LAUNCH, recipe]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*POSITIONAL[:2], "dmo"],
            "Recipes for SmolLM2-135M-Instruct: recipes/SmolLM2-135M-Instruct/grpo/config_demo",
        ),
        ([*POSITIONAL[:3], "zero9"], "expected one of ddp, fsdp, zero2, zero3"),
        ([*NAMED, "--learning_rate", "1e-6"], "unknown option '--learning_rate' .* go after --args"),
        ([*NAMED, "--args", "--lerning_rate", "1"], "Did you mean 'learning_rate'"),
        ([*NAMED, "--dp", "many"], "dp is 'many': expected a whole number. Usage: sbatch"),
        (NAMED[:4], "config is missing: give --config"),
    ],
)
def test_what_is_wrong_is_one_sentence(words, said):
    with pytest.raises(UserError, match=said):
        training_words(words)


def test_evaluation_by_name_and_by_position():
    command = ["open-r1", "evaluate", "--model", "org/m", "--tasks", "math_500"]
    assert evaluation_words(["org/m", "math_500"]) == command
    words = [
        "--model",
        "org/m",
        "--task",
        "math_500",
        "--revision",
        "v1",
        "--tp",
        "2",
        "--dp",
        "4",
        "--args",
        "--num-samples",
        "4",
    ]
    options = ["--revision", "v1", "--tensor-parallel-size", "2", "--data-parallel-size", "4", "--num-samples", "4"]
    assert evaluation_words(words) == command + options


def test_rows_go_where_the_names_say_and_an_array_shares_them_out():
    words = ["--hf-dataset", "AI-MO/NuminaMath-TIR", "--prompt-template", "two words"]
    options = ["--model", "org/m", *words, "--output", "data/NuminaMath-TIR-m"]
    assert client_options("org/m", words, {}) == options
    array = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_ID": "6"}
    assert client_options("org/m", words, array) == [*options, "--shard", "1/4"]
    assert client_options("org/m", ["--output=x"], {}) == ["--model", "org/m", "--output=x"]


def plan(words=(), **options):
    return ServerPlan(ServerJobOptions(model="org/m", port=8000, **options), words)


def pairs(command):
    return dict(zip(command, [*command[1:], ""], strict=True))


def test_a_model_is_split_over_the_gpus_of_a_node_and_its_layers_over_the_nodes():
    job = Job("7", "name", nodes=2, gpus_per_node=8)
    head, other = (server_command(plan(words=("--max-model-len", "9")), job, node, "n1") for node in (0, 1))
    for name, value in {
        "--tensor-parallel-size": "8",
        "--pipeline-parallel-size": "2",
        "--nnodes": "2",
        "--master-addr": "n1",
        "--max-model-len": "9",
    }.items():
        assert pairs(head)[name] == pairs(other)[name] == value
    assert (pairs(head)["--node-rank"], pairs(other)["--node-rank"]) == ("0", "1")
    assert "--headless" in other and "--headless" not in head
    assert pairs(head)["--master-port"] != pairs(head)["--port"]


def test_tensor_parallel_over_more_gpus_than_a_node_has_reaches_over_nodes():
    two, four = Job("7", "name", nodes=2, gpus_per_node=8), Job("7", "name", nodes=4, gpus_per_node=8)
    assert parallel_sizes(plan(tp=16), two) == (16, 1)
    assert parallel_sizes(plan(tp=16), four) == (16, 2)
    assert parallel_sizes(plan(tp=16, dp=2), four) == (16, 1)
    assert parallel_sizes(plan(), four) == (8, 4)
    assert parallel_sizes(plan(tp=8, dp=2), two) == (8, 1)  # a copy on each node
    assert parallel_sizes(plan(dp=2), two) == (4, 2)
    words = pairs(server_command(plan(tp=16), two, 1, "n1"))
    assert (words["--tensor-parallel-size"], words["--pipeline-parallel-size"], words["--nnodes"]) == ("16", "1", "2")


@pytest.mark.parametrize(
    ("options", "nodes", "sentence"),
    [
        (
            {"tp": 16},
            1,
            "--tp 16 x --pp 1 x --dp 1 needs 16 GPUs, but the job has 8 (1 node of 8): give sbatch --nodes=2",
        ),
        ({"dp": 3, "tp": 8}, 2, "needs 24 GPUs, but the job has 16 (2 nodes of 8): give sbatch --nodes=3"),
        ({"tp": 5, "pp": 1}, 2, "cannot be split evenly over 2 nodes"),
    ],
)
def test_a_server_that_does_not_fit_the_job_is_one_sentence(options, nodes, sentence):
    with pytest.raises(UserError) as error:
        parallel_sizes(plan(**options), Job("7", "name", nodes=nodes, gpus_per_node=8))
    assert sentence in str(error.value)


def test_ray_needs_no_launcher_of_vllm_and_one_node_needs_neither():
    job = Job("7", "name", nodes=2, gpus_per_node=8)
    command = server_command(plan(ray=True), job, 0, "n1")
    assert pairs(command)["--distributed-executor-backend"] == "ray"
    assert "--nnodes" not in command
    alone = server_command(plan(dp=4), Job("7", "name", nodes=1, gpus_per_node=8), 0, "n1")
    assert "--nnodes" not in alone
    assert (pairs(alone)["--tensor-parallel-size"], pairs(alone)["--data-parallel-size"]) == ("2", "4")


def test_an_environment_without_vllm_is_said(tmp_path):
    (tmp_path / "bin").mkdir()
    for python in (None, sys.executable):
        if python is not None:
            (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec {python} -S "$@"\n')
            (tmp_path / "bin/python").chmod(0o755)
        for package, name in (("vllm", "vLLM"), ("ray", "Ray")):
            with pytest.raises(UserError, match=f"{name} is not installed in {tmp_path}: .* OPEN_R1_VLLM_ENVIRONMENT"):
                check_installed(package, {"OPEN_R1_VLLM_ENVIRONMENT": str(tmp_path)})


def test_outside_of_a_job_it_says_so():
    with pytest.raises(UserError, match="submit the script with sbatch"):
        current_job({})


CONTROLLER = """#!/bin/sh
# The first {silent} calls find no controller.
calls={calls}
echo "$@" >>$calls
[ $(wc -l <$calls) -gt {silent} ] || {{ echo "Unable to contact slurm controller" >&2; exit 1; }}
case "$1" in
requeue) {requeue} ;;
*) echo "JobId=7 JobState={state} Requeue={may}" ;;
esac
"""


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """A function that puts a `scontrol` on PATH, and returns the file of its calls."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(job_module, "CONTROLLER_PAUSE_SECONDS", 0.0)

    def make(silent=0, requeue="exit 0", state="RUNNING", may=1):
        calls, program = tmp_path / "calls", tmp_path / "scontrol"
        program.write_text(CONTROLLER.format(calls=calls, silent=silent, requeue=requeue, state=state, may=may))
        program.chmod(0o755)
        return calls

    return make


JOB = Job("7", "name", nodes=2, gpus_per_node=8)


@pytest.mark.parametrize("silent", [0, 1, 3])
def test_a_stopped_job_requeues_itself_also_if_the_controller_is_silent_at_first(controller, capsys, silent):
    calls = controller(silent)
    assert finish(75, JOB) == 0
    assert calls.read_text().splitlines()[-1] == "requeue 7"
    assert "Job 7 is in the queue again and will continue" in capsys.readouterr().out


def test_a_job_that_was_canceled_does_not_requeue_itself(controller):
    calls = controller(state="CANCELLED")
    assert finish(75, JOB) == 75
    assert "requeue" not in calls.read_text()


@pytest.mark.parametrize(
    ("options", "reason", "count"), [({"silent": 99}, "Unable to contact", 12), ({"may": 0}, "no", 2)]
)
def test_a_job_that_cannot_requeue_says_how_to_continue(controller, capsys, options, reason, count):
    calls = controller(requeue="echo no >&2; exit 1", **options)
    assert finish(75, JOB) == 75
    said = capsys.readouterr().out
    assert f"({reason}" in said and "Submit the same command again" in said
    assert len(calls.read_text().splitlines()) == count
