"""A vLLM server that accepts new weights: its command line, its process, and whether it answers."""

import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from open_r1.engine.vllm.installed import sampler_variables
from open_r1.engine.vllm.scheduler import SCHEDULER
from open_r1.engine.vllm.tokens import MIDDLEWARE
from open_r1.errors import UserError
from open_r1.options.annotations import Range
from open_r1.processes.child import ChildProcess, Command, new_log

EXTENSION = "open_r1.engine.vllm.weights.WeightReceiver"
ERROR = re.compile(r"(?:^|] )((?:\w+\.)*\w*(?:Error|Exception): .+)")
"""An exception in vLLM's log, alone or after the place that logged it."""
SHOWN_LINES = 12
"""Last lines of the log of a server that has ended, in the error message."""
POLL_SECONDS = 0.2
REPORT_SECONDS = 15.0
"""Between messages that say what is being waited for."""
GPU_MEMORY, CPU_MEMORY = 0.9, 0.4
"""Default share of the memory for a server."""
CPU_BATCH = 4096
"""Tokens of prompts that go through the model together on a CPU."""
GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batch sizes with a CUDA graph. A batch is padded to the next of them; vLLM's own list is three times as long, and
ends at 512, beyond which every kernel is launched by hand."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Model and server."""

    model: str
    """Hub id or local folder: the model that the run starts from."""
    revision: str | None = None
    """Its revision on the hub."""
    host: str = "127.0.0.1"
    """Interface to listen on. Whoever reaches it can replace the weights: loopback, or a private network."""
    port: Annotated[int, Range(at_least=1, at_most=65535)] = 8000
    """Port to listen on."""
    tensor_parallel_size: Annotated[int, Range(at_least=1)] = 1
    """GPUs that share the model."""
    dtype: str = "auto"
    """`auto`: float32 on a CPU; on GPUs that of the checkpoint, bfloat16 if that is float32."""
    max_model_len: Annotated[int | None, Range(at_least=1)] = None
    """Longest prompt with its completion, in tokens. Default: as much of the model's as fits."""
    max_num_seqs: Annotated[int, Range(at_least=1)] = 1024
    """Completions decoded at once."""
    gpu_memory_utilization: Annotated[float | None, Range(above=0, at_most=1)] = None
    """Share of the GPU's memory. Default: 0.9; on a CPU 0.4 of the machine's."""
    trust_remote_code: bool = False
    """Run the model's code."""
    enforce_eager: bool = False
    """No CUDA graphs: starts sooner."""
    seed: int = 0
    """Of the server's random numbers. On a CPU each request has its own seed besides."""


def server_words(options: ServerOptions, on_gpu: bool, extra: Sequence[str] = ()) -> list[str]:
    """The command line; `extra` are more options of vLLM's own, which come last."""
    words = [sys.executable, "-m", *_entry(), options.model]
    words += ["--host", options.host, "--port", str(options.port), "--seed", str(options.seed)]
    words += ["--dtype", _dtype(options, on_gpu)]
    words += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
    memory = options.gpu_memory_utilization or (GPU_MEMORY if on_gpu else CPU_MEMORY)
    words += ["--gpu-memory-utilization", str(memory)]
    words += ["--max-num-seqs", str(options.max_num_seqs)]
    words += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    words += ["--worker-extension-cls", EXTENSION, "--middleware", MIDDLEWARE]
    words += ["--scheduler-cls", SCHEDULER]
    words += ["--uvicorn-log-level", "warning"]
    # A cache that does not hold the whole context of a model would keep vLLM from starting.
    words += ["--max-model-len", str(options.max_model_len or "auto")]
    if options.revision is not None:
        words += ["--revision", options.revision]
    if options.trust_remote_code:
        words += ["--trust-remote-code"]
    if not on_gpu:  # a prompt in chunks would wind back its request's generator, which torch's on a CPU cannot
        words += ["--no-enable-chunked-prefill"]
        if options.max_model_len is not None:
            words += ["--max-num-batched-tokens", str(max(CPU_BATCH, options.max_model_len))]
    if options.enforce_eager:
        words += ["--enforce-eager"]
    elif on_gpu:
        words += ["--compilation-config", json.dumps({"cudagraph_capture_sizes": graph_sizes(options.max_num_seqs)})]
    return [*words, *extra]


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes with a CUDA graph, up to that of a full batch."""
    most = max(8, max_num_seqs)
    return sorted({*(n for n in GRAPH_SIZES if n < most), min(most, GRAPH_SIZES[-1])})


def _dtype(options: ServerOptions, on_gpu: bool) -> str:
    """vLLM's own `auto` would serve float32 checkpoints in float16."""
    if options.dtype != "auto":
        return options.dtype
    if not on_gpu:
        return "float32"
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    return "float16" if config.get_text_config().dtype == torch.float16 else "bfloat16"


def _entry() -> list[str]:
    """`vllm serve`, which does not start from the package for CPUs (it asks for its own version under another name)."""
    try:
        version("vllm")
    except PackageNotFoundError:
        if find_spec("vllm") is not None:
            return ["vllm.entrypoints.openai.api_server", "--model"]
    return ["vllm.entrypoints.cli.main", "serve"]


def server_environment(devices: Sequence[str] | None = None) -> dict[str, str]:
    """Variables that a server on `devices` (default: those that this process sees) needs besides."""
    added = sampler_variables() | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return added | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices is not None else {})


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server, where it will answer, and where its output goes."""

    name: str
    command: Command
    url: str
    log: Path

    def start(self) -> "ServerProcess":
        """Starts it; `wait_until_up` tells when it answers."""
        return ServerProcess(self)


def vllm_server(
    options: ServerOptions, devices: Sequence[str], log: Path | None = None, extra: Sequence[str] = ()
) -> ServerCommand:
    """A server with `options` on `devices` (none: the CPU); `extra` are more options of vLLM's own."""
    url = f"http://{options.host}:{options.port}"
    command = Command(tuple(server_words(options, bool(devices), extra)), server_environment(devices))
    return ServerCommand(f"the vLLM server at {url}", command, url, log or new_log("open_r1-vllm-"))


class ServerProcess(ChildProcess):
    """A server that was started here. It ends with this process."""

    log: Path

    def __init__(self, server: ServerCommand) -> None:
        super().__init__(server.name, server.command.argv, server.command.environment, server.log)
        self.url = server.url

    def check_alive(self) -> None:
        """Raises `UserError`, with the end of its log, if it has ended."""
        code = self.poll()
        if code is not None:
            ended = self.failure("").reason + (self._first_error() if code < 128 else "")  # else: by a signal
            raise UserError(f"{self.name} {ended}.\n{self.end_of_log()}")

    def _first_error(self) -> str:
        """The first error in its log: later ones are of processes that waited for the one that failed."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            found = next((error[1] for line in lines if (error := ERROR.search(line))), "")
        return f": {found.rstrip('.')}" if found else ""

    def end_of_log(self) -> str:
        """For error messages."""
        return f"The end of its log, {self.log}:\n{self.tail(SHOWN_LINES)}"


class ServerTimeout(UserError):
    """A server did not answer in time."""

    def __init__(self, server: ServerProcess, reason: str) -> None:
        self.server, self.reason = server, reason
        super().__init__(f"{server.name} {reason}.\n{server.end_of_log()}")


def wait_until_up(
    servers: Sequence[ServerProcess], seconds: float, say: Callable[[str], None], option: str = ""
) -> Iterator[None]:
    """Ends when all servers answer. Yields before each poll, so that the caller can check on its processes.

    Raises `ServerTimeout` after `seconds`, which the user gave as `option`. `say` shows what is being waited for.
    """
    started = reported = time.monotonic()
    waiting = list(servers)
    while waiting:
        yield
        waiting = [server for server in waiting if not is_up(server.url)]
        now = time.monotonic()
        if waiting and now - started > seconds:
            reason = f"did not answer at {waiting[0].url} within {seconds:g} s{f' ({option})' if option else ''}"
            raise ServerTimeout(waiting[0], reason)
        if waiting and now - reported > REPORT_SECONDS:
            reported = now
            say(f"Waiting for {', '.join(server.name for server in waiting)}: {now - started:.0f} s.")
        time.sleep(POLL_SECONDS if waiting else 0)
    if servers:
        which = f"{servers[0].name} is" if len(servers) == 1 else f"{len(servers)} servers are"
        say(f"{which} up after {time.monotonic() - started:.0f} s.")


def start_servers(
    commands: Sequence[ServerCommand], seconds: float, say: Callable[[str], None], option: str = ""
) -> list[ServerProcess]:
    """Starts servers at the same time and returns when all answer. Raises `UserError`, with none of them left, if one
    does not."""
    with ExitStack() as started:
        servers = [started.enter_context(command.start()) for command in commands]
        for _ in wait_until_up(servers, seconds, say, option):
            for server in servers:
                server.check_alive()
        started.pop_all()
    return servers


def is_up(url: str) -> bool:
    """Whether a server answers and is healthy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=5.0) as reply:
            return reply.status == 200
    except (OSError, HTTPException):
        return False
