"""A vLLM server that can be given new weights: its command line, and the process."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from urllib3.exceptions import HTTPError

from open_r1.engine.openai_servers import Refusal, Server
from open_r1.engine.vllm_process import TORCHRUN
from open_r1.engine.vllm_scheduler import SCHEDULER
from open_r1.engine.vllm_tokens import MIDDLEWARE
from open_r1.engine.vllm_worker import CPU_BATCH, graph_sizes
from open_r1.errors import UserError

EXTENSION = "open_r1.engine.vllm_group.GroupWeightReceiver"
SHOWN_LINES = 12
"""Last lines of its log that a server's death is reported with."""


@dataclass(frozen=True)
class ServerOptions:
    """What a server is made of, and where it listens."""

    model: str
    """Hub id or local folder."""
    port: int = 8000
    host: str = "127.0.0.1"
    """Interface that it listens on. Whoever reaches it can replace its weights: loopback, or a private network."""
    devices: tuple[str, ...] | None = None
    """GPUs, as CUDA_VISIBLE_DEVICES names them; empty: the CPU. Default: those that this process sees."""
    tensor_parallel: int = 1
    """GPUs that share the model."""
    dtype: str = "auto"
    max_model_len: int | None = None
    """Longest prompt with its completion, in tokens. Default: the model's, or as much as the cache has room for (a
    cache that does not hold the whole context of a model would keep vLLM from starting)."""
    max_num_seqs: int = 1024
    """Completions that are decoded at once."""
    gpu_memory_utilization: float = 0.9
    """Share of the GPU's (or, on a CPU, the machine's) memory."""
    revision: str | None = None
    trust_remote_code: bool = False
    enforce_eager: bool = False
    """No compilation and no CUDA graphs."""
    api_servers: int = 1
    """Processes that speak HTTP. More than one pays only for vLLM's own routes, which detokenize."""


def server_words(options: ServerOptions, on_gpu: bool, extra: Sequence[str] = ()) -> list[str]:
    """The command line; `extra` are more options of vLLM's own, which come last."""
    words = [sys.executable, "-m", *_entry(), options.model]
    words += ["--host", options.host, "--port", str(options.port)]
    words += ["--dtype", options.dtype, "--tensor-parallel-size", str(options.tensor_parallel)]
    words += ["--gpu-memory-utilization", str(options.gpu_memory_utilization)]
    words += ["--max-num-seqs", str(options.max_num_seqs)]
    words += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    words += ["--worker-extension-cls", EXTENSION, "--middleware", MIDDLEWARE]
    words += ["--scheduler-cls", SCHEDULER]
    words += ["--uvicorn-log-level", "warning"]
    if options.api_servers > 1:
        words += ["--api-server-count", str(options.api_servers)]
    words += ["--max-model-len", str(options.max_model_len or "auto")]
    if options.revision is not None:
        words += ["--revision", options.revision]
    if options.trust_remote_code:
        words += ["--trust-remote-code"]
    if not on_gpu:  # as in vllm_worker.py: a seeded prompt in chunks ends vLLM on a CPU
        words += ["--no-enable-chunked-prefill"]
        if options.max_model_len is not None:
            words += ["--max-num-batched-tokens", str(max(CPU_BATCH, options.max_model_len))]
    if options.enforce_eager:
        words += ["--enforce-eager"]
    elif on_gpu:
        words += ["--compilation-config", json.dumps({"cudagraph_capture_sizes": graph_sizes(options.max_num_seqs)})]
    return [*words, *extra]


def _entry() -> list[str]:
    """`vllm serve`, which does not start from the package for CPUs (it asks for its own version under another name)."""
    try:
        version("vllm")
    except PackageNotFoundError:
        if find_spec("vllm") is not None:
            return ["vllm.entrypoints.openai.api_server", "--model"]
    return ["vllm.entrypoints.cli.main", "serve"]


def server_environment(devices: Sequence[str] | None = None) -> dict[str, str]:
    """Variables that a server needs besides those of this process, from which `TORCHRUN` must be left out."""
    source = str(Path(__file__).parents[2])
    added = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
    }
    return added | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices is not None else {})


class ServerProcess:
    """A server, started here; `wait` until it answers. It ends with this process."""

    def __init__(self, options: ServerOptions, log: Path | None = None, extra: Sequence[str] = ()) -> None:
        self.options = options
        self.log = log or Path(tempfile.mkstemp(prefix="open_r1-vllm-server-", suffix=".log")[1])
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.url = f"http://{options.host}:{options.port}"
        inherited = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
        on_gpu = bool(options.devices) if options.devices is not None else _sees_gpu()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                server_words(options, on_gpu, extra),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent, which then closes the server
                env=inherited | server_environment(options.devices),
            )
        _processes.add(self)

    def wait(self, seconds: float = 1800.0) -> None:
        """Returns when the server answers. Raises `UserError` if it ends before, or does not within `seconds`."""
        server = Server(self.url, None, 1)
        deadline = time.monotonic() + seconds
        while not is_up(server):
            if self.process.poll() is not None:
                raise self.died()
            if time.monotonic() > deadline:
                self.close()
                raise UserError(f"the vLLM server at {self.url} did not answer within {seconds:.0f} s.\n{self._tail()}")
            time.sleep(0.5)

    def died(self) -> UserError:
        """The error that says how the process ended."""
        code = self.process.wait()
        how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
        return UserError(f"the vLLM server at {self.url} {how}.\n{self._tail()}")

    def close(self) -> None:
        """Ends the server and the processes that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(timeout=20)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        return "\n".join([f"The end of its log, {self.log}:", *(f"  {line}" for line in lines)])


def is_up(server: Server) -> bool:
    """Is the server there and well?"""
    try:
        server.open("health", None, timeout=5.0).drain_conn()
    except (Refusal, HTTPError, OSError):
        return False
    return True


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


_processes: weakref.WeakSet[ServerProcess] = weakref.WeakSet()


def _end_all() -> None:
    for server in list(_processes):
        if server.process.poll() is None:
            server.close()


atexit.register(_end_all)
