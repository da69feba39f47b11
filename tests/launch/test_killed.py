"""Processes of a run that are killed or stopped, in each layout: one sentence, nothing left over, the same result. In
two processes on a CPU (gloo), and on two GPUs (NCCL).
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE
from runs import arguments, assert_same_weights, make_folder, metrics
from toys import make_model

from open_r1.devices import gpu_count
from open_r1.engine.vllm.addresses import any_free_port

ROOT = Path(__file__).parents[2]
TWO_GPUS = [pytest.mark.gpu, pytest.mark.skipif(gpu_count() < 2, reason="needs two GPUs")]
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=TWO_GPUS)])


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("killed"))


class Run:
    """`open-r1 launch` of a recipe, in two processes."""

    def __init__(self, task, argv, backend, folder, device, *options):
        folder.mkdir(exist_ok=True)
        self.terminal = folder / "terminal.txt"
        names, values = [w[2:] for w in argv[::2]], argv[1::2]
        recipe = folder / task / "config_toy.yaml"
        recipe.parent.mkdir(exist_ok=True)
        quoted = ("model_name_or_path", "dataset_name", "output_dir")
        lines = [f"{n}: {json.dumps(v) if n in quoted else v}\n" for n, v in zip(names, values, strict=True)]
        recipe.write_text("".join(lines))
        paths = filter(None, [str(ROOT / "src"), str(ROOT / "tests/training"), os.environ.get("PYTHONPATH")])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        words = ["--processes", "2"] if "--processes" not in options else []
        words += ["--accelerator", backend, "--main-port", str(any_free_port()), *options, recipe]
        self.task = task
        with self.terminal.open("w") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "open_r1.cli", "launch", *words],
                env=environment,
                stdout=terminal,
                stderr=subprocess.STDOUT,
            )

    def processes(self):
        """All processes below the run."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_until(self, condition):
        """What `condition` returns, once that is something."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.terminal.read_text()
            time.sleep(0.02)
        return found

    def rank(self, number):
        """The training process of that rank, once it is there."""
        script = str(ROOT / "src/open_r1" / f"{self.task}.py")

        def find():
            for process in self.processes():
                with suppress(psutil.Error):
                    if script in process.cmdline() and process.environ().get("RANK") == str(number):
                        return process
            return None

        return self.wait_until(find)

    def end(self, processes=()):
        """(exit status, what the terminal shows), once every process has ended."""
        status = self.process.wait(timeout=PATIENCE)
        assert not [p for p in psutil.wait_procs(processes, timeout=15)[1] if p.status() != "zombie"]
        return status, self.terminal.read_text()


def options_for(device, task, backend):
    """Options with which a run on this device can be repeated. Skips what is not installed."""
    if device == "cpu":
        return {}
    if backend.startswith("zero") and find_spec("deepspeed") is None:
        pytest.skip("needs DeepSpeed")
    engine = {"engine": "transformers"} if task == "grpo" else {}  # the native engine's completions vary with the batch
    return {"use_cpu": "false", "dtype": "float32"} | engine


def assert_same_runs(one, two, device):
    """The same metrics and weights. On GPUs, sums in another order differ in their last bits: a tenth of a percent, and
    for weights a fifth of what one step at this learning rate changes, are more than these and less than one step on
    other data, or with an optimizer that has forgotten, would make."""
    if device == "cpu":
        assert metrics(one) == metrics(two)
        assert_same_weights(one, two)
        return
    for line, other in zip(metrics(one), metrics(two), strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if isinstance(value, float) and not math.isnan(value):
                assert value == pytest.approx(other[name], rel=1e-3, abs=1e-5), (name, line, other)
    assert_same_weights(one, two, atol=2e-4)


def one_sentence(shown, sentence):
    """Whether it is the only error that the terminal shows."""
    return len(re.findall(r"^error: ", shown, re.MULTILINE)) == 1 and sentence in shown and "Traceback" not in shown


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
@DEVICES
def test_a_training_process_that_is_killed_ends_the_run_which_continues_exactly(
    toys, tmp_path, task, backend, share, victim, device
):
    options = {"max_steps": 12, "save_steps": 3, "per_device_train_batch_size": 4 * share}
    options |= {"sequence_parallel_size": share} | options_for(device, task, backend)
    argv = arguments(toys, task, tmp_path / "out", **options)
    whole = Run(task, arguments(toys, task, tmp_path / "whole", **options), backend, tmp_path / "beside", device)
    run = Run(task, argv, backend, tmp_path, device)
    process = run.rank(victim)
    run.wait_until((tmp_path / "out/checkpoint-3").exists)
    process.send_signal(signal.SIGKILL)
    status, shown = run.end(run.processes())
    assert status == 137, shown
    assert f"training process {victim} ended with exit code 137 (SIGKILL)." in shown
    sentence = "error: training ended with exit code 137 (SIGKILL); everything else was stopped. Run the same command"
    assert one_sentence(shown, sentence), shown
    assert len(metrics(tmp_path / "out")) < 12
    run = Run(task, argv, backend, tmp_path, device)
    assert run.end()[0] == 0, run.terminal.read_text()
    assert "Continuing from" in run.terminal.read_text()
    assert whole.end()[0] == 0, whole.terminal.read_text()
    assert_same_runs(tmp_path / "out", tmp_path / "whole", device)


@pytest.mark.slow
@DEVICES
def test_a_training_process_that_hangs_ends_the_run(toys, tmp_path, device):
    """A stopped process (SIGSTOP) leaves the other one in a collective."""
    options = {"max_steps": 120, "save_steps": 20, "hang_timeout": 30} | options_for(device, "sft", "ddp")
    run = Run("sft", arguments(toys, "sft", tmp_path / "out", **options), "ddp", tmp_path, device)
    process = run.rank(1)
    run.wait_until((tmp_path / "out/checkpoint-20").exists)
    process.suspend()
    status, shown = run.end(run.processes())
    assert status == 70, shown
    assert re.search(r"error: (training|checkpoint): no progress for 30 s \(hang_timeout\)", shown), shown
    assert "error: training ended with exit code 70; everything else was stopped." in shown


SERVE = (
    f"{sys.executable} -m open_r1.cli vllm-serve --model {{model}} --host {{host}} --port {{port}} "
    "--tensor-parallel-size {tp} --max-model-len 128 --max-num-seqs 64 --enforce-eager "
    "--gpu-memory-utilization 0.2 --kv-cache-memory-bytes 2000000000"
)
"""Starts as fast as it can; with a cache of a fixed size, because vLLM refuses to start if another process frees memory
while it measures."""


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("device", "victim", "sent"),
    [
        ("cpu", "the server", signal.SIGSTOP),
        ("cpu", "a training process", signal.SIGKILL),
        pytest.param("gpu", "the server", signal.SIGKILL, marks=TWO_GPUS),
    ],
)
def test_training_ends_with_a_server_that_dies_or_hangs_and_it_with_training(tmp_path, device, victim, sent):
    """On a CPU, the server is beside two training processes. On two GPUs, one trains. A stopped process keeps its
    connections: only its silence tells. The same command then goes on with a new server, which samples other
    completions."""
    if find_spec("vllm") is None:
        pytest.skip("needs vLLM")
    folder = make_folder(tmp_path / "toys")
    make_model(folder / "model", hidden_size=256)
    options = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_port": any_free_port(), "vllm_group_port": 0}
    options |= {"vllm_enforce_eager": "true", "vllm_max_model_length": 128, "max_staleness": 1}
    options |= {"max_steps": 30, "save_steps": 1, "per_device_train_batch_size": 4}
    layout = []
    if device == "gpu":
        options |= {"use_cpu": "false"}
        layout = ["--processes", "1", "--server-command", SERVE]
    argv = arguments(folder, "grpo", tmp_path / "out", **options)
    run = Run("grpo", argv, "ddp", tmp_path, device, *layout)
    run.wait_until((tmp_path / "out/checkpoint-2").exists)
    processes = run.processes()
    if victim == "the server":
        (hit,) = [p for p in processes if p.cmdline()[2:3] and p.cmdline()[2].startswith("vllm.entrypoints")]
    else:
        hit = run.rank(1)
    hit.send_signal(sent)
    expected, sentence = {
        ("the server", signal.SIGSTOP): (2, r"vLLM server.*: it (has not answered for 60 s|does not answer)\."),
        ("the server", signal.SIGKILL): (
            137,
            r"generator \d+ ended with exit code 137 \(SIGKILL\); everything else was",
        ),
        ("a training process", signal.SIGKILL): (
            137,
            r"training ended with exit code 137 \(SIGKILL\); everything else",
        ),
    }[victim, sent]
    status, shown = run.end(processes)
    assert status == expected and re.search(f"error: .*{sentence}", shown) and "Traceback" not in shown, shown
    run = Run("grpo", argv, "ddp", tmp_path, device, *layout)
    assert run.end()[0] == 0, run.terminal.read_text()
    assert [line["step"] for line in metrics(tmp_path / "out") if "loss" in line] == list(range(1, 31))
