"""Opens the engine that a command asks for, with what is needed to talk to it."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Engine, Message
from open_r1.engine.weights_digest import weights_digest
from open_r1.errors import UserError
from open_r1.modeling.checkpoint import Checkpoint, has_only_adapters

logger = logging.getLogger(__name__)

GPU_MEMORY, CPU_MEMORY = 0.9, 0.4
"""Share of the memory that vLLM takes, unless told otherwise."""
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
    automatic = options.engine == "auto" and options.base_url is None and not adapters
    on_vllm = options.engine == "vllm" or (automatic and _vllm_on_gpus())
    if not on_vllm and (options.tensor_parallel_size > 1 or (options.data_parallel_size or 1) > 1):
        raise UserError(
            f"tensor_parallel_size is {options.tensor_parallel_size} and data_parallel_size "
            f"{options.data_parallel_size or 1}, which only vLLM on GPUs can do: leave them out, or give --engine vllm "
            "where it is installed."
        )
    if options.base_url is not None:
        return _open_server(options, options.base_url)
    if on_vllm:
        return _open_vllm(options)
    return _open_native(options) if options.engine == "native" else _open_transformers(options)


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


def _open_native(options: EngineOptions) -> OpenEngine:
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


def _vllm_on_gpus() -> bool:
    import torch

    from open_r1.engine.vllm_engine import version_of_vllm

    return torch.cuda.is_available() and version_of_vllm() is not None


def _open_vllm(options: EngineOptions) -> OpenEngine:
    from transformers import GenerationConfig

    from open_r1.data.chat import encode, prepare_tokenizer, render, stop_token_ids
    from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions, version_of_vllm, visible_devices
    from open_r1.modeling.loading import context_length, load_config, load_generation_config

    tokenizer = prepare_tokenizer(options.model, options.revision, options.trust_remote_code, option="--model")
    checkpoint = _checkpoint(options)
    config = load_config(checkpoint)
    generation = load_generation_config(checkpoint) or GenerationConfig.from_model_config(config)
    devices = visible_devices()
    wanted = (options.data_parallel_size or 1) * options.tensor_parallel_size
    if wanted > max(1, len(devices)):
        raise UserError(
            f"data_parallel_size {options.data_parallel_size or 1} x tensor_parallel_size "
            f"{options.tensor_parallel_size} needs {wanted} GPUs, and {len(devices)} are visible: lower "
            "--data-parallel-size or --tensor-parallel-size, or name more in CUDA_VISIBLE_DEVICES."
        )
    engines = options.data_parallel_size or max(1, len(devices) // options.tensor_parallel_size)
    if idle := devices[engines * options.tensor_parallel_size :]:
        devices = devices[: engines * options.tensor_parallel_size]
        logger.warning(
            "GPU %s is left idle: %d engines on %d GPUs each.", ",".join(idle), engines, options.tensor_parallel_size
        )
    engine = VLLMEngine(
        VLLMOptions(
            model=options.model,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            dtype=options.dtype,
            devices=tuple(devices),
            tensor_parallel=options.tensor_parallel_size,
            engines_per_device=options.engines_per_gpu,
            gpu_memory_utilization=options.gpu_memory_utilization or (GPU_MEMORY if devices else CPU_MEMORY),
            max_num_seqs=options.max_num_seqs,
            enforce_eager=options.enforce_eager,
            seed=secrets.randbits(31),
            logprobs=False,
        ),
        tokenizer,
        max_model_len=1,
    )
    return OpenEngine(
        engine=engine,
        name="vllm",
        context=context_length(config),
        stop_token_ids=stop_token_ids(tokenizer, generation),
        render=lambda messages: encode(tokenizer, render(tokenizer, messages, add_generation_prompt=True)),
        answer_start=render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)[-32:],
        prompt_tokens=len,
        max_tokens_per_batch=None,
        identity={
            "weights": weights_digest(options.model, options.revision),
            "revision": options.revision,
            "dtype": options.dtype,
            "device": "cuda" if devices else "cpu",
            "vllm": version_of_vllm(),
        },
    )


def _checkpoint(options: EngineOptions) -> Checkpoint:
    return Checkpoint(options.model, options.revision, options.trust_remote_code, option="model")


def _load_model(options: EngineOptions) -> Any:
    import torch

    from open_r1.modeling.loading import explain_loading_errors, load_causal_lm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: Any = options.dtype
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
    elif device == "cpu":
        dtype = torch.float32
    checkpoint = _checkpoint(options)
    model: Any = load_causal_lm(checkpoint, dtype)
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
