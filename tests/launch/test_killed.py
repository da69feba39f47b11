"""Processes of a run that are killed, in each layout on a CPU: one sentence, nothing left over, the same result."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from runs import arguments, assert_same_weights, backend_env, launch, make_folder, metrics
from toys import make_model

from open_r1.engine.vllm.addresses import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("killed"))


class Run:
    """`open-r1 launch` of a recipe, in two processes."""

    def __init__(self, task, argv, backend, folder):
        self.terminal = folder / "terminal.txt"
        names, values = [w[2:] for w in argv[::2]], argv[1::2]
        recipe = folder / task / "config_toy.yaml"
        recipe.parent.mkdir(exist_ok=True)
        quoted = ("model_name_or_path", "dataset_name", "output_dir")
        lines = [f"{n}: {json.dumps(v) if n in quoted else v}\n" for n, v in zip(names, values, strict=True)]
        recipe.write_text("".join(lines))
        paths = [str(ROOT / "src"), str(ROOT / "tests/training")]
        self.task = task
        with self.terminal.open("w") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "open_r1.cli", "launch", "--processes", "2", "--accelerator", backend, recipe],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                stdout=terminal,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, path):
        """Until a file is there; returns all processes below the run."""
        deadline = time.monotonic() + 240
        while not path.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.terminal.read_text()
            time.sleep(0.02)
        return psutil.Process(self.process.pid).children(recursive=True)

    def rank(self, number, processes):
        """The training process of that rank."""
        script = str(ROOT / "src/open_r1" / f"{self.task}.py")
        (found,) = [p for p in processes if script in p.cmdline() and p.environ().get("RANK") == str(number)]
        return found

    def end(self, processes):
        """(exit status, what the terminal shows), once every process has ended."""
        status = self.process.wait(timeout=400)
        assert not [p for p in psutil.wait_procs(processes, timeout=15)[1] if p.status() != "zombie"]
        return status, self.terminal.read_text()


DEEPSPEED = pytest.mark.deepspeed


@pytest.mark.parametrize(
    ("task", "backend", "share", "victim"),
    [
        pytest.param("grpo", "ddp", 1, 1, marks=pytest.mark.slow),
        pytest.param("sft", "fsdp", 1, 0, marks=pytest.mark.slow),
        pytest.param("grpo", "ddp", 2, 0, marks=pytest.mark.slow),
        pytest.param("grpo", "zero3", 1, 0, marks=DEEPSPEED),
        pytest.param("sft", "zero2", 1, 1, marks=DEEPSPEED),
    ],
)
def test_a_training_process_that_is_killed_ends_the_run_which_continues_exactly(
    toys, tmp_path, task, backend, share, victim
):
    options = {"max_steps": 12, "save_steps": 3, "per_device_train_batch_size": 4 * share}
    options |= {"sequence_parallel_size": share}
    argv = arguments(toys, task, tmp_path / "out", **options)
    run = Run(task, argv, backend, tmp_path)
    processes = run.wait_for(tmp_path / "out/checkpoint-3")
    run.rank(victim, processes).send_signal(signal.SIGKILL)
    status, shown = run.end(processes)
    assert status == 137
    assert f"training process {victim} ended with exit code 137 (SIGKILL)." in shown
    assert shown.count("error: ") == 1 and "Traceback" not in shown
    sentence = "error: training ended with exit code 137 (SIGKILL); everything else was stopped. Run the same command"
    assert sentence in shown
    assert len(metrics(tmp_path / "out")) < 12
    run = Run(task, argv, backend, tmp_path)
    assert run.end([])[0] == 0, run.terminal.read_text()
    whole = arguments(toys, task, tmp_path / "whole", **options)
    launch(task, whole, processes=2, env=backend_env(backend))
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "out", tmp_path / "whole")


@pytest.mark.vllm
@pytest.mark.parametrize("victim", ["the server", "a training process"])
def test_two_training_processes_end_with_a_server_that_hangs_and_it_with_them(tmp_path, victim):
    """A stopped process keeps its connections: only its silence tells. The same command then goes on with a new server,
    which samples other completions."""
    folder = make_folder(tmp_path / "toys")
    make_model(folder / "model", hidden_size=128)
    options = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_port": free_port(18500), "vllm_group_port": 0}
    options |= {"vllm_enforce_eager": "true", "vllm_max_model_length": 128, "max_staleness": 1}
    options |= {"max_steps": 30, "save_steps": 1, "per_device_train_batch_size": 4}
    argv = arguments(folder, "grpo", tmp_path / "out", **options)
    run = Run("grpo", argv, "ddp", tmp_path)
    processes = run.wait_for(tmp_path / "out/checkpoint-2")
    if victim == "the server":
        (server,) = [p for p in processes if p.cmdline()[2:3] and p.cmdline()[2].startswith("vllm.entrypoints")]
        server.suspend()
        status, sentence = 2, r"error: .*vLLM server.*: it (has not answered for 60 s|does not answer)\."
    else:
        run.rank(1, processes).kill()
        status, sentence = 137, r"error: training ended with exit code 137 \(SIGKILL\); everything else was stopped\."
    ended, shown = run.end(processes)
    assert ended == status and re.search(sentence, shown) and "Traceback" not in shown, shown
    run = Run("grpo", argv, "ddp", tmp_path)
    assert run.end([])[0] == 0, run.terminal.read_text()
    assert [line["step"] for line in metrics(tmp_path / "out") if "loss" in line] == list(range(1, 31))
