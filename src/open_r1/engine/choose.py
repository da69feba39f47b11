"""Opens the engine that a command asks for, with what is needed to talk to it."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Engine, Message
from open_r1.engine.weights_digest import weights_digest
from open_r1.errors import UserError
from open_r1.modeling.checkpoint import Checkpoint, has_only_adapters

logger = logging.getLogger(__name__)

NATIVE_MEMORY = 0.6
"""Share of the memory that the native engine's keys and values may take, unless told otherwise."""


@dataclass
class OpenEngine:
    """An engine ready for requests, and what its caller must know of it."""

    engine: Engine
    name: str
    context: int | None
    """Tokens of prompt and completion together; None: not known."""
    stop_token_ids: tuple[int, ...]
    render: Callable[[list[Message]], list[int] | list[Message]]
    """Messages as the prompt of a `Request`."""
    prompt_tokens: Callable[[Any], int]
    """Tokens of such a prompt; an upper bound where only the server has the tokenizer."""
    max_tokens_per_batch: int | None
    """Tokens of requests that are decoded together; None: the engine does its own batching."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What decides the answers besides the requests: weights, data type."""
    answer_start: str = ""
    """With what the chat template ends a prompt, such as `<think>`, which the answers then lack; servers do not say."""
    count_tokens: Callable[[Any], int] | None = None
    """Exact count where `prompt_tokens` is a bound; may ask the server."""

    def room(self, prompt: Any, wanted: int) -> int:
        """Tokens for a completion: `wanted`, or what `prompt` leaves of the context (0 or less: it does not fit)."""
        if self.context is None:
            return wanted
        length = self.prompt_tokens(prompt)
        if self.count_tokens is not None and self.context - length < wanted:
            length = self.count_tokens(prompt)
        return min(wanted, self.context - length)

    def reserve(self, tokens: int) -> None:
        """Says how long the longest request is, prompt and completion together, before the first one is made."""
        if self.name in ("vllm", "native"):
            self.engine.need(tokens)  # type: ignore[attr-defined]

    def start(self) -> None:
        """Starts vLLM's processes, which takes minutes, or captures the native engine's graphs; without it they start
        with the first request."""
        if self.name in ("vllm", "native"):
            self.engine.start()  # type: ignore[attr-defined]

    def watch(self, on_tokens: Callable[[int], None] | None) -> None:
        """Has the engine tell `on_tokens` of new tokens as they are written."""
        self.engine.on_tokens = on_tokens  # type: ignore[attr-defined]


def open_engine(options: EngineOptions) -> OpenEngine:
    """The engine of `options`. Raises `UserError`."""
    if options.engine == "openai" and options.base_url is None:
        raise UserError("engine is openai: give --base-url, such as http://localhost:8000/v1.")
    if options.engine in ("native", "transformers", "vllm") and options.base_url is not None:
        raise UserError(f"base_url is given, but engine is {options.engine}: leave one of them out.")
    adapters = has_only_adapters(options.model)
    if options.engine == "vllm" and adapters:
        raise UserError(
            f"model {options.model}: the folder holds LoRA adapters only, and vLLM needs whole weights: give "
            "--engine transformers, or a folder with merged weights."
        )
    name = _automatic(options, adapters) if options.engine == "auto" else options.engine
    _check_parallel(options, name)
    if options.engines_per_gpu > 1:
        logger.warning("engines_per_gpu has no effect: one engine fills a GPU.")
    if options.base_url is not None:
        return _open_server(options, options.base_url)
    if name == "vllm":
        return _open_vllm(options)
    if name == "transformers":
        return _open_transformers(options)
    engines = options.data_parallel_size or max(1, _gpus())
    return open_native(options) if engines == 1 else _open_parallel(options, engines)


def _check_parallel(options: EngineOptions, name: str) -> None:
    """Raises `UserError` for more GPUs than an engine can use."""
    tensor, data = options.tensor_parallel_size, options.data_parallel_size or 1
    if tensor > 1 and name != "vllm":
        raise UserError(
            f"tensor_parallel_size is {tensor}, which only vLLM on GPUs can do: leave it out, or give --engine vllm "
            "where it is installed."
        )
    if data > 1 and name not in ("native", "vllm"):
        raise UserError(
            f"data_parallel_size is {data} and the engine {name}, of which there is one: leave it out, or give "
            "--engine native, or --engine vllm where it is installed."
        )
    gpus = _gpus()
    if tensor * data > max(1, gpus) and (gpus or name == "vllm"):
        raise UserError(
            f"data_parallel_size {data} x tensor_parallel_size {tensor} needs {tensor * data} GPUs, and {gpus} are "
            "visible: lower --data-parallel-size or --tensor-parallel-size, or name more in CUDA_VISIBLE_DEVICES."
        )


def decode_budget(device_type: str) -> int:
    """Tokens that the transformers engine decodes at once, unless told otherwise."""
    return 8192 if device_type == "cpu" else 65536


def _open_transformers(options: EngineOptions) -> OpenEngine:
    from open_r1.data.chat import encode, prepare_tokenizer, render, stop_token_ids
    from open_r1.engine.transformers_engine import TransformersEngine
    from open_r1.modeling.loading import context_length

    tokenizer = prepare_tokenizer(options.model, options.revision, options.trust_remote_code, option="--model")
    model = _load_model(options)
    budget = options.max_tokens_per_batch or decode_budget(model.device.type)
    return OpenEngine(
        engine=TransformersEngine(model, tokenizer, max_tokens_per_batch=budget),
        name="transformers",
        context=context_length(model.config),
        stop_token_ids=stop_token_ids(tokenizer, model.generation_config),
        render=lambda messages: encode(tokenizer, render(tokenizer, messages, add_generation_prompt=True)),
        answer_start=render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)[-32:],
        prompt_tokens=len,
        max_tokens_per_batch=budget,
        identity={
            "weights": weights_digest(options.model, options.revision),
            "revision": options.revision,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "max_tokens_per_batch": budget,
        },
    )


def open_native(options: EngineOptions) -> OpenEngine:
    """One native engine, in this process. Raises `UserError`."""
    from open_r1.engine.native.engine import NativeEngine, NativeOptions

    opened = _open_transformers(options)
    reference: Any = opened.engine
    opened.engine = NativeEngine(
        reference.model,
        reference.tokenizer,
        max_model_len=1,
        options=NativeOptions(
            max_num_seqs=options.max_num_seqs,
            memory=options.gpu_memory_utilization or NATIVE_MEMORY,
            compile=not options.enforce_eager,
        ),
    )
    opened.name, opened.max_tokens_per_batch = "native", None
    del opened.identity["max_tokens_per_batch"]
    return opened


def _automatic(options: EngineOptions, adapters: bool) -> str:
    from open_r1.engine.automatic import automatic_engine
    from open_r1.engine.vllm.installed import version_of_vllm
    from open_r1.modeling.loading import load_config

    if options.base_url is not None:
        return "openai"
    gpus = _gpus()
    if adapters or not gpus:
        return "transformers"
    if options.tensor_parallel_size > 1 and version_of_vllm() is not None:
        return "vllm"
    return automatic_engine(load_config(_checkpoint(options)), on_cuda=True, wants_vllm=True)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _open_parallel(options: EngineOptions, engines: int) -> OpenEngine:
    from open_r1.engine.devices import visible_devices
    from open_r1.engine.native.parallel import ParallelEngine

    engine = ParallelEngine(options, visible_devices()[:engines] or [""] * engines)
    return _around(lambda _: engine, "native", options, engine.identity)


def _open_vllm(options: EngineOptions) -> OpenEngine:
    from open_r1.engine.devices import visible_devices
    from open_r1.engine.vllm.installed import check_installed, version_of_vllm
    from open_r1.engine.vllm.local import LocalServers
    from open_r1.engine.vllm.process import ServerOptions, gpu_dtype

    check_installed()
    devices, size = visible_devices(), options.tensor_parallel_size
    engines = options.data_parallel_size or max(1, len(devices) // size)
    if idle := devices[engines * size :]:
        logger.warning("GPU %s is left idle: %d engines on %d GPUs each.", ",".join(idle), engines, size)
    dtype: str = options.dtype
    if dtype == "auto" and devices:
        dtype = gpu_dtype(options.model, options.revision, options.trust_remote_code)
    identity = {
        "weights": weights_digest(options.model, options.revision),
        "revision": options.revision,
        "dtype": options.dtype,
        "device": "cuda" if devices else "cpu",
        "vllm": version_of_vllm(),
    }
    server = ServerOptions(
        model=options.model,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        dtype=dtype,
        tensor_parallel_size=size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_seqs=options.max_num_seqs,
        enforce_eager=options.enforce_eager,
        seed=secrets.randbits(31),
    )
    groups = [devices[i * size : (i + 1) * size] for i in range(engines)]
    return _around(lambda tokenizer: LocalServers(server, groups, tokenizer), "vllm", options, identity)


def _around(
    make: Callable[[PreTrainedTokenizerBase], Engine], name: str, options: EngineOptions, identity: dict[str, Any]
) -> OpenEngine:
    """An engine in other processes, with what this one reads of the model's folder."""
    from transformers import GenerationConfig

    from open_r1.data.chat import encode, prepare_tokenizer, render, stop_token_ids
    from open_r1.modeling.loading import context_length, load_config, load_generation_config

    tokenizer = prepare_tokenizer(options.model, options.revision, options.trust_remote_code, option="--model")
    checkpoint = _checkpoint(options)
    config = load_config(checkpoint)
    generation = load_generation_config(checkpoint) or GenerationConfig.from_model_config(config)
    return OpenEngine(
        engine=make(tokenizer),
        name=name,
        context=context_length(config),
        stop_token_ids=stop_token_ids(tokenizer, generation),
        render=lambda messages: encode(tokenizer, render(tokenizer, messages, add_generation_prompt=True)),
        answer_start=render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)[-32:],
        prompt_tokens=len,
        max_tokens_per_batch=None,
        identity=identity,
    )


def _checkpoint(options: EngineOptions) -> Checkpoint:
    return Checkpoint(options.model, options.revision, options.trust_remote_code, option="model")


def _load_model(options: EngineOptions) -> Any:
    import torch

    from open_r1.modeling.architectures import why_unsupported
    from open_r1.modeling.attention import ATTENTION
    from open_r1.modeling.loading import explain_loading_errors, load_causal_lm, load_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: Any = options.dtype
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
    elif device == "cpu":
        dtype = torch.float32
    checkpoint = _checkpoint(options)
    config = load_config(checkpoint)
    # transformers' own sdpa ignores softcaps (Gemma 2).
    exact = {"attn_implementation": ATTENTION} if why_unsupported(config) is None else {}
    model: Any = load_causal_lm(checkpoint, dtype, config=config, **exact)
    with explain_loading_errors(checkpoint):
        return model.to(device).eval()


def _open_server(options: EngineOptions, base_url: str) -> OpenEngine:
    from open_r1.engine.openai_engine import OpenAIEngine, prompt_bound

    engine = OpenAIEngine(
        base_url,
        options.model,
        concurrency=options.concurrency or 64,
        tries=options.retries + 1,
        timeout=options.timeout,
    )
    return OpenEngine(
        engine=engine,
        name="openai",
        context=engine.check(),
        stop_token_ids=(),
        render=lambda messages: messages,
        prompt_tokens=prompt_bound,
        max_tokens_per_batch=None,
        count_tokens=engine.count_tokens,
    )
