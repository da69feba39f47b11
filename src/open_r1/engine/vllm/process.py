"""Starts vLLM servers that accept new weights: command line, process, and waiting until they answer."""

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
"""An exception in vLLM's log, at the beginning of a line or after the logger's prefix."""
SHOWN_LINES = 12
"""Number of last log lines in the error message on a server that has ended."""
POLL_SECONDS = 0.2
REPORT_SECONDS = 15.0
"""Interval between messages while waiting for servers."""
GPU_MEMORY, CPU_MEMORY = 0.9, 0.4
"""Default share of memory for a server."""
CPU_BATCH = 4096
"""Prompt tokens in one forward pass on a CPU."""
GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batch sizes with a CUDA graph; a batch is padded to the next one. vLLM's own list is three times as long and ends at
512; larger batches would run without a graph."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Model and server."""

    model: str
    """Hub id or local folder of the model that the run starts from."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    host: str = "127.0.0.1"
    """Interface to listen on. Anyone who can reach it can replace the weights: use loopback or a private network."""
    port: Annotated[int, Range(at_least=1, at_most=65535)] = 8000
    """Port to listen on."""
    tensor_parallel_size: Annotated[int, Range(at_least=1)] = 1
    """Number of GPUs that share the model."""
    dtype: str = "auto"
    """`auto`: float32 on a CPU; on GPUs the checkpoint's dtype, or bfloat16 if that is float32."""
    max_model_len: Annotated[int | None, Range(at_least=1)] = None
    """Maximum length of prompt plus completion, in tokens. Default: the model's context, or as much of it as fits in
    memory."""
    max_num_seqs: Annotated[int, Range(at_least=1)] = 1024
    """Maximum number of completions decoded at once."""
    gpu_memory_utilization: Annotated[float | None, Range(above=0, at_most=1)] = None
    """Share of GPU memory to use. Default: 0.9; on a CPU, 0.4 of the machine's memory."""
    trust_remote_code: bool = False
    """Run model code that ships with the checkpoint."""
    enforce_eager: bool = False
    """Do not use CUDA graphs: starts faster, decodes slower."""
    seed: int = 0
    """Random seed of the server. On a CPU, each request also has its own seed."""


def server_words(options: ServerOptions, on_gpu: bool, extra: Sequence[str] = ()) -> list[str]:
    """The command line. `extra` are further options of vLLM, which come last."""
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
    # Without "auto", vLLM does not start if the model's whole context does not fit into the cache.
    words += ["--max-model-len", str(options.max_model_len or "auto")]
    if options.revision is not None:
        words += ["--revision", options.revision]
    if options.trust_remote_code:
        words += ["--trust-remote-code"]
    if not on_gpu:  # chunked prefill rewinds the request's random generator, which torch's on a CPU cannot
        words += ["--no-enable-chunked-prefill"]
        if options.max_model_len is not None:
            words += ["--max-num-batched-tokens", str(max(CPU_BATCH, options.max_model_len))]
    if options.enforce_eager:
        words += ["--enforce-eager"]
    elif on_gpu:
        words += ["--compilation-config", json.dumps({"cudagraph_capture_sizes": graph_sizes(options.max_num_seqs)})]
    return [*words, *extra]


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes with a CUDA graph, up to a full batch."""
    most = max(8, max_num_seqs)
    return sorted({*(n for n in GRAPH_SIZES if n < most), min(most, GRAPH_SIZES[-1])})


def _dtype(options: ServerOptions, on_gpu: bool) -> str:
    """Resolves `auto`: vLLM's own would serve float32 checkpoints in float16."""
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
    """`vllm serve`, or its API server if vLLM is the package for CPUs, whose `serve` looks up its version under the
    wrong name."""
    try:
        version("vllm")
    except PackageNotFoundError:
        if find_spec("vllm") is not None:
            return ["vllm.entrypoints.openai.api_server", "--model"]
    return ["vllm.entrypoints.cli.main", "serve"]


def server_environment(devices: Sequence[str] | None = None) -> dict[str, str]:
    """Additional environment variables for a server on `devices` (default: those visible to this process)."""
    added = sampler_variables() | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return added | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices is not None else {})


@dataclass(frozen=True)
class ServerCommand:
    """The command that starts a server, the URL where it will answer, and the file for its output."""

    name: str
    command: Command
    url: str
    log: Path

    def start(self) -> "ServerProcess":
        """Starts the server without waiting until it answers (see `wait_until_up`)."""
        return ServerProcess(self)


def vllm_server(
    options: ServerOptions, devices: Sequence[str], log: Path | None = None, extra: Sequence[str] = ()
) -> ServerCommand:
    """A server with `options` on `devices` (none: the CPU); `extra` are further options of vLLM."""
    url = f"http://{options.host}:{options.port}"
    command = Command(tuple(server_words(options, bool(devices), extra)), server_environment(devices))
    return ServerCommand(f"the vLLM server at {url}", command, url, log or new_log("open_r1-vllm-"))


class ServerProcess(ChildProcess):
    """A running server that this process started and that ends with it."""

    log: Path

    def __init__(self, server: ServerCommand) -> None:
        super().__init__(server.name, server.command.argv, server.command.environment, server.log)
        self.url = server.url

    def check_alive(self) -> None:
        """Raises `UserError`, with the end of its log, if the server has ended."""
        code = self.poll()
        if code is not None:
            ended = self.failure("").reason + (self._first_error() if code < 128 else "")  # from 128 on: a signal
            raise UserError(f"{self.name} {ended}.\n{self.end_of_log()}")

    def _first_error(self) -> str:
        """The first error in the log. Later ones come from processes that waited for the one that failed."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            found = next((error[1] for line in lines if (error := ERROR.search(line))), "")
        return f": {found.rstrip('.')}" if found else ""

    def end_of_log(self) -> str:
        """The last lines of the log, for error messages."""
        return f"The end of its log, {self.log}:\n{self.tail(SHOWN_LINES)}"


class ServerTimeout(UserError):
    """A server did not answer in time."""

    def __init__(self, server: ServerProcess, reason: str) -> None:
        self.server, self.reason = server, reason
        super().__init__(f"{server.name} {reason}.\n{server.end_of_log()}")


def wait_until_up(
    servers: Sequence[ServerProcess], seconds: float, say: Callable[[str], None], option: str = ""
) -> Iterator[None]:
    """Waits until all servers answer. Yields before each poll, so that the caller can check on its processes.

    Raises `ServerTimeout` after `seconds` (the value of `option`, if it is one). `say` shows messages to the user.
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
    """Starts servers at the same time and waits until all answer. If one fails, stops the others and raises
    `UserError`."""
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
