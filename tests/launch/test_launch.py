"""`open-r1 launch` as users start it."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE
from runs import arguments, assert_same_weights, make_folder
from toys import make_model

from open_r1 import cli
from open_r1.engine.vllm.addresses import port_is_free
from open_r1.launch.options import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("launch"))


@pytest.fixture
def recipe(toys, tmp_path):
    """A recipe file with the options of a short run, in the folder of its task."""

    def write(task, **options):
        words = arguments(toys, task, tmp_path / "out", **options)
        names, values = [w[2:] for w in words[::2]], words[1::2]
        path = tmp_path / task / "config_toy.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(f"{n}: {json.dumps(str(v)) if n in PATHS else v}\n" for n, v in zip(names, values, strict=True))
        )
        return str(path)

    return write


PATHS = ("model_name_or_path", "dataset_name", "output_dir")


def start(*words, **more):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests/training")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "open_r1.cli", "launch", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def refused(words, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["launch", *words])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.slow
def test_two_processes_on_the_cpu_are_two_and_two_nodes_give_the_same_weights(recipe, tmp_path):
    path = recipe("sft", per_device_train_batch_size=4, max_steps=2, save_strategy="no")
    one = start("--processes", "2", path, "--output_dir", str(tmp_path / "one"))
    out, err = one.communicate(timeout=PATIENCE)
    assert one.returncode == 0, err
    assert "Training in 2 processes on cpu (gloo), weights whole on each." in out
    assert re.search("effective batch +│ 8 rows", out)
    where = ["--nodes", "2", "--head", "127.0.0.1", "--main-port", str(free_port()), "--processes", "1"]
    two = [start(*where, "--node-rank", str(r), path, "--output_dir", str(tmp_path / "two")) for r in (0, 1)]
    told = [node.communicate(timeout=PATIENCE) for node in two]
    assert [node.returncode for node in two] == [0, 0], told
    assert "Training in 2 processes on cpu (gloo)" in told[0][0]
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=1e-7)


def test_what_ends_a_run_is_said_with_its_status_and_nothing_is_left(recipe, tmp_path):
    path = recipe("grpo", max_steps=1000, save_strategy="no")
    run = start("--processes", "2", path)
    lines = iter(run.stdout.readline, "")
    shown = list(itertools.takewhile(lambda line: "step 1/1000" not in line, lines))
    assert any("Training in 2 processes on cpu (gloo), weights whole on each." in line for line in shown)
    below = psutil.Process(run.pid).children(recursive=True)
    workers = [
        p for p in below if "grpo.py" in " ".join(p.cmdline()) and "accelerate_launch" not in " ".join(p.cmdline())
    ]
    workers[-1].send_signal(signal.SIGKILL)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 137
    assert "training ended with exit code 137 (SIGKILL)" in err
    deadline = time.monotonic() + 15
    while left := [p for p in below if p.is_running() and p.status() != "zombie"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.vllm
def test_a_real_vllm_server_is_started_waited_for_and_stopped_and_its_death_ends_the_run(recipe, tmp_path):
    model = make_folder(tmp_path / "larger") / "model"
    make_model(model, hidden_size=128)
    port = free_port()
    options = {"model_name_or_path": model, "use_vllm": "true", "vllm_mode": "server", "vllm_server_port": port}
    path = recipe("grpo", vllm_enforce_eager="true", vllm_group_port=0, **options)

    run = start(path, "--max_steps", "2")
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, out + err
    assert f"generator {port} is up after" in out and "Sending weights to 1 vLLM server(s)" in out
    assert "step 2/2" in out
    assert port_is_free(port)

    run = start(path, "--max_steps", "1000", "--output_dir", str(tmp_path / "killed"))
    shown = list(itertools.takewhile(lambda line: "step 2/1000" not in line, iter(run.stdout.readline, "")))
    below = psutil.Process(run.pid).children(recursive=True)
    (server,) = [p for p in below if p.cmdline()[1:2] == ["-m"] and p.cmdline()[2].startswith("vllm.entrypoints")]
    server.kill()
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 137, [*shown, err]
    assert (
        f"generator {port} ended with exit code 137 (SIGKILL); everything else was stopped. Run the same command to "
        "continue from the last checkpoint.\nIts last lines:\n" in err
    )
    assert "pid=" in err.split("Its last lines:")[1]
    assert not [p for p in psutil.wait_procs(below, timeout=15)[1] if p.status() != "zombie"]


def test_a_dry_run_shows_layout_and_commands_of_a_cluster_that_is_not_here(recipe, capsys):
    path = recipe("grpo", use_vllm="true", vllm_mode="server", num_generations=8)
    with pytest.raises(SystemExit) as end:
        cli.main(["launch", "--nodes", "2", "--gpus-per-node", "8", "--accelerator", "zero3", "--dry-run", path])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "8 processes (nccl), zero3" in shown
    assert "tensor parallel 1, data parallel 8" in shown
    node0, node1 = shown.split("\nnode 0:")[1].split("\nnode 1:")
    assert "--num_processes 8 --machine_rank 0" in node0
    assert "--vllm_server_base_url http://node1:" in node0
    assert node1.count("CUDA_VISIBLE_DEVICES=") == 8
    assert "launch.accelerate_launch" not in node1


def test_options_of_the_launch_may_stand_on_either_side_of_the_recipe():
    options, recipe, rest = parse(["--nodes", "2", "r.yaml", "--learning_rate", "1e-6", "--tp", "4", "--max_steps=3"])
    assert (options.nodes, options.tp, recipe) == (2, 4, "r.yaml")
    assert rest == ["--learning_rate", "1e-6", "--max_steps=3"]
    assert parse(["--config", "r.yaml", "--dry_run"])[1:] == ("r.yaml", [])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["recipes/SmolLM2-135M-Instruct/grpo/config_no.yaml"], "recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml"),
        (["recipes/Llama-9/grpo/config_demo.yaml"], "Llama-3.2-1B-Instruct, "),
        (
            ["--accelerator", "fsdp", "recipes/demo/zero.yaml", "--optim", "adamw_8bit"],
            "bitsandbytes cannot update weights that FSDP has sharded",
        ),
        (["--accelerator", "zero4", "recipes/demo/zero.yaml"], "expected one of ddp, fsdp, zero2, zero3"),
        ([], "the recipe is missing"),
        (["--learning_rate", "1e-6", "r.yaml"], "expected a recipe instead of --learning_rate"),
        (["--nodes", "0", "r.yaml"], "nodes is 0: it must be at least 1"),
        (["--nodes", "2", "recipes/demo/zero.yaml"], "--node-rank 0 to 1"),
        (["--nodes", "2", "--node-rank", "2", "--head", "localhost", "recipes/demo/zero.yaml"], "expected 0 to 1"),
        (["--gpus-per-node", "64", "recipes/demo/zero.yaml", "--num_generations", "2"], "--gpus-per-node is 64, and"),
        (["recipes/demo/zero.yaml", "--learning_rat", "1"], "Did you mean 'learning_rate'?"),
        (["--processes", "3", "recipes/demo/zero.yaml", "--num_generations", "7"], "which does not divide the"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_starts(words, sentence, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sentence in refused(words, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--main-port", "99999"], "main_port is 99999: it must be at most 65000"),
        (["--gpus-per-node", "-1"], "gpus_per_node is -1: it must be at least 0"),
        (["--start-timeout", "0"], "start_timeout is 0.0: it must be above 0"),
        (["--server-command", "serve {prt}"], "'serve {prt}' cannot be read ('prt'): it may contain {model}, {host}"),
        (["--server-command", "serve 'm"], "(No closing quotation)"),
        (["--server-command", "serve {model.name}"], "('str' object has no attribute 'name')"),
        (["--server-command", "serve", "--output_dir", "/proc/x"], "output_dir is /proc/x, which cannot be written to"),
        (["--server-command", "serve", "--vllm_server_port", "70000"], "vllm_server_port is 70000: it must be at most"),
        (
            ["--server-command", "serve", "--model_name_or_path", "/no/model"],
            "model_name_or_path is '/no/model', which",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_before_a_server_starts(words, sentence, recipe, capsys):
    path = recipe("grpo", use_vllm="true", vllm_mode="server")
    assert sentence in refused([path, *words], capsys)


def test_a_port_in_use_is_said(recipe, capsys):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} (for the processes to meet) is in use" in refused(
            ["--main-port", str(port), recipe("sft")], capsys
        )
