"""A vLLM server that can be given new weights: its command line, and the process."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from urllib3.exceptions import HTTPError

from open_r1.engine.openai_servers import Refusal, Server
from open_r1.engine.vllm.installed import sampler_variables
from open_r1.engine.vllm.scheduler import SCHEDULER
from open_r1.engine.vllm.tokens import MIDDLEWARE
from open_r1.errors import UserError
from open_r1.options.annotations import Range
from open_r1.processes import Part, describe_exit, new_log

EXTENSION = "open_r1.engine.vllm.weights.WeightReceiver"
SHOWN_LINES = 12
"""Last lines of its log that a server's death is reported with."""
GPU_MEMORY, CPU_MEMORY = 0.9, 0.4
"""Share of the memory that a server takes, unless told otherwise."""
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
    """`auto`: the checkpoint's; float32 on a CPU."""
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
    words += ["--dtype", "float32" if options.dtype == "auto" and not on_gpu else options.dtype]
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


def gpu_dtype(model: str, revision: str | None, trust_remote_code: bool) -> str:
    """The checkpoint's data type, bfloat16 if that is float32, of which vLLM's own `auto` makes float16."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
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


class ServerProcess:
    """A server on `devices` (none: the CPU), started here; `wait` until it answers. It ends with this process."""

    def __init__(
        self, options: ServerOptions, devices: Sequence[str], log: Path | None = None, extra: Sequence[str] = ()
    ) -> None:
        self.log = log or new_log("open_r1-vllm-")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.url = f"http://{options.host}:{options.port}"
        words, environment = server_words(options, bool(devices), extra), server_environment(devices)
        self.part = Part(f"the vLLM server at {self.url}", words, environment, self.log)

    def wait(self, seconds: float = 1800.0) -> None:
        """Returns when the server answers. Raises `UserError` if it ends before, or does not within `seconds`."""
        server = Server(self.url, None, 1)
        deadline = time.monotonic() + seconds
        while not is_up(server):
            if self.part.poll() is not None:
                raise self.died()
            if time.monotonic() > deadline:
                self.close()
                raise UserError(f"{self.part.name} did not answer within {seconds:.0f} s.\n{self._tail()}")
            time.sleep(0.5)

    def died(self) -> UserError:
        """The error that says how the process ended."""
        return UserError(f"{self.part.name} ended with {describe_exit(self.part.wait())}.\n{self._tail()}")

    def close(self) -> None:
        """Ends the server and the processes that it started."""
        self.part.stop()

    def _tail(self) -> str:
        lines = list(self.part.lines)[-SHOWN_LINES:]
        return "\n".join([f"The end of its log, {self.log}:", *(f"  {line}" for line in lines)])


def is_up(server: Server) -> bool:
    """Is the server there and well?"""
    try:
        server.open("health", None, timeout=5.0).drain_conn()
    except (Refusal, HTTPError, OSError):
        return False
    return True
