import subprocess
import sys

import pytest

from open_r1.engine.vllm_process import worker_environment

SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without a compiler for CUDA."""
    monkeypatch.delenv(SAMPLER, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    return tmp_path


def test_flashinfers_sampler_is_left_out_where_nothing_can_compile_it(bare):
    assert worker_environment(["0"])[SAMPLER] == "0"


@pytest.mark.parametrize("path", ["nvcc", "cuda/bin/nvcc"])
def test_where_something_can_vllm_decides_by_the_gpu(bare, path):
    """Told to take the sampler, vLLM ends on GPUs that FlashInfer is not for."""
    nvcc = bare / path
    nvcc.parent.mkdir(parents=True, exist_ok=True)
    nvcc.touch(mode=0o755)
    assert SAMPLER not in worker_environment(["0"])


def test_a_setting_of_ones_own_stays(bare, monkeypatch):
    monkeypatch.setenv(SAMPLER, "1")
    assert worker_environment(["0"])[SAMPLER] == "1"


def test_a_worker_has_its_gpus_and_stays_out_of_the_trainers_group(bare, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    environment = worker_environment(["2", "3"])
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3" and "RANK" not in environment


UNSENDABLE = """
import socket, time
from multiprocessing.connection import Connection
from open_r1.engine.vllm_worker import Answers
ours, theirs = socket.socketpair()
Answers(Connection(ours.detach())).send(("done", lambda: 0))
time.sleep(60)
"""


def test_a_worker_that_cannot_send_an_answer_ends():
    done = subprocess.run([sys.executable, "-c", UNSENDABLE], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "pickle" in done.stderr
