"""The parent's end of a vLLM worker process: starting it, talking to it, saying why it died."""

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from open_r1.errors import UserError

REPLY_SECONDS = 600.0
MEMORY = ("out of memory", "outofmemory", "no memory", "free memory", "available memory", "cache memory")
"""Words of errors for which a share of the GPU is a remedy."""
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that would make vLLM join the trainer's process group."""
PORT = "VLLM_PORT"
"""Variable that would have all engines of a host look for free ports from the same one on."""


class WorkerProcess:
    """A worker on the GPUs `devices` (as CUDA_VISIBLE_DEVICES names them; none: the CPU)."""

    def __init__(self, devices: Sequence[str], log: Path | None = None) -> None:
        self.devices = list(devices)
        self.log = log or Path(tempfile.mkstemp(prefix="open_r1-vllm-", suffix=".log")[1])
        ours, theirs = socket.socketpair()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "open_r1.engine.vllm_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent, which then closes the worker
                env=worker_environment(devices),
            )
        theirs.close()
        self.connection = Connection(ours.detach())
        _processes.add(self)

    def send(self, message: Any) -> None:
        """Raises `UserError` if the worker is gone."""
        try:
            self.connection.send(message)
        except OSError:
            raise self.died() from None

    def receive(self, name: str, seconds: float = REPLY_SECONDS) -> Any:
        """The value of the next message called `name`; what was on its way before it is dropped."""
        deadline = time.monotonic() + seconds
        while True:
            if not self.connection.poll(max(0.0, deadline - time.monotonic())):
                raise UserError(f"vLLM on {self.place} did not answer within {seconds:.0f} s; its log is {self.log}.")
            message = self.read()
            if message[0] == name:
                return message[1]

    def read(self) -> tuple:
        """The next message. Raises `UserError` if the worker failed or is gone."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            raise self.died() from None
        if message[0] == "failed":
            raise UserError(f"vLLM on {self.place}: {_explained(message[1])} Its log is {self.log}.")
        return message

    def ask(self, *message: Any) -> Any:
        """Sends a command and waits until it is done."""
        self.send(message)
        return self.receive("done")

    @property
    def place(self) -> str:
        """Where it runs, in words."""
        return f"GPU {','.join(self.devices)}" if self.devices else "the CPU"

    def died(self) -> UserError:
        """The error that says how the process ended."""
        try:
            code: int | None = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        how = f"was killed (signal {-code})" if code is not None and code < 0 else f"ended with exit code {code}"
        return UserError(f"vLLM on {self.place} {how}. Its log is {self.log}.")

    def leave(self) -> None:
        """Asks the process to end, without waiting for it."""
        try:
            self.connection.send(("close",))
        except OSError:
            self.process.kill()

    def close(self, deadline: float) -> None:
        """Waits until `deadline` (of the monotonic clock) for the process, which was asked to `leave`; then ends it."""
        try:
            self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()


def worker_environment(devices: Sequence[str]) -> dict[str, str]:
    """This process' variables and what a worker on `devices` needs besides."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*TORCHRUN, PORT)}
    environment = sampler_variables() | inherited
    environment |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork cannot use CUDA once its parent has looked for GPUs
        "PYTHONPATH": os.pathsep.join(filter(None, [_source(), os.environ.get("PYTHONPATH")])),
    }
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return environment


def sampler_variables() -> dict[str, str]:
    """What keeps vLLM from FlashInfer's sampler where there is no nvcc to compile it, because vLLM would end there.
    Elsewhere nothing: vLLM knows which GPUs the sampler is for, and ends on the others if it is told to take it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    built = importlib.util.find_spec("flashinfer_jit_cache") is not None
    if built or shutil.which("nvcc") or (Path(home) / "bin" / "nvcc").exists():
        return {}
    return {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


def _explained(reason: str) -> str:
    lines = reason.strip().splitlines()
    said = [line.strip() for line in lines if line.strip().startswith("Value error, ")]  # pydantic's, below a heading
    first = said[0].removeprefix("Value error, ").partition(" [type=")[0] if said else lines[0]
    first = first.rstrip(".")
    if any(words in reason.lower() for words in MEMORY):
        return (
            f"{first}. Give it another share of the GPU (vllm_gpu_memory_utilization when training, else "
            "--gpu-memory-utilization), or shorter completions; what other processes take of the GPU while vLLM starts "
            "counts too."
        )
    return f"{first}."


def _source() -> str:
    return str(Path(__file__).parents[2])


_processes: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


def _kill_all() -> None:
    for worker in list(_processes):
        worker.process.kill()


atexit.register(_kill_all)
