"""Opens the engine that a command's options select, with the properties that its caller needs."""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from open_r1.devices import gpu_count, visible_devices
from open_r1.engine.choose import choose_engine
from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Engine, Sampling
from open_r1.engine.weights_digest import weights_digest
from open_r1.modeling.checkpoint import base_name

logger = logging.getLogger(__name__)

NATIVE_MEMORY = 0.6
"""Share of the memory that the native engine's keys and values may take, by default."""
VLLM_SEQUENCES = 512
"""Completions that vLLM decodes at once, by default."""


@dataclass
class OpenEngine:
    """An engine that accepts requests, and its properties."""

    engine: Engine
    name: str
    context: int | None
    """Tokens of prompt and completion together; None: not known."""
    stop_token_ids: tuple[int, ...]
    render: Callable[..., Any]
    """Turns a conversation, or its messages, into the prompt of a `Request`. The optional second argument is its place,
    for error messages."""
    prompt_tokens: Callable[[Any], int]
    """Number of tokens of such a prompt; an upper bound where only the server has the tokenizer."""
    max_tokens_per_batch: int | None
    """Tokens of requests that are decoded together; None: the engine does its own batching."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What the completions depend on in addition to the requests: weights, data type."""
    answer_start: str = ""
    """The end of a rendered prompt, such as `<think>`, which completions then lack; unknown for servers."""
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
        """Announces the longest request, prompt and completion together, before the first one is made."""
        self.engine.need(tokens)

    @property
    def lost(self) -> Mapping[str, int]:
        """Notes on what the chat template left out of prompts, with the number of prompts for each."""
        return getattr(self.render, "lost", {})

    def start(self, sampling: Sampling) -> None:
        """Starts vLLM's processes, which takes minutes, or captures the native engine's graphs for `sampling`, now
        instead of at the first request."""
        self.engine.start(sampling)

    def watch(self, on_tokens: Callable[[int], None] | None) -> None:
        """Calls `on_tokens` with the number of new tokens as they are sampled."""
        self.engine.on_tokens = on_tokens


def open_engine(options: EngineOptions) -> OpenEngine:
    """The engine of `options`. Raises `UserError`."""
    opened = _open(options)
    if options.chat_template_kwargs:
        opened.identity["chat_template_kwargs"] = dict(options.chat_template_kwargs)
    return opened


def _open(options: EngineOptions) -> OpenEngine:
    name = choose_engine(options)
    if name == "openai":
        return _open_server(options)
    if name == "vllm":
        return _open_vllm(options)
    if name == "transformers":
        return _open_transformers(options)
    engines = options.data_parallel_size or max(1, gpu_count())
    return open_native(options) if engines == 1 else _open_parallel(options, engines)


def open_native(options: EngineOptions) -> OpenEngine:
    """One native engine, in this process. Raises `UserError`."""
    from open_r1.engine.native.engine import NativeEngine, NativeOptions

    tokenizer, model = _load_tokenizer(options), _load_model(options)
    native = NativeOptions(
        max_num_seqs=options.max_num_seqs,
        memory=options.gpu_memory_utilization or NATIVE_MEMORY,
        compile=not options.enforce_eager,
    )
    engine = NativeEngine(model, tokenizer, max_model_len=1, options=native)
    return _opened(engine, "native", tokenizer, model.config, model.generation_config, _identity(options, model))


def decode_budget(device_type: str) -> int:
    """Tokens that the transformers engine decodes at once, by default."""
    return 8192 if device_type == "cpu" else 65536


def _open_transformers(options: EngineOptions) -> OpenEngine:
    from open_r1.engine.transformers_engine import TransformersEngine

    tokenizer, model = _load_tokenizer(options), _load_model(options)
    budget = options.max_tokens_per_batch or decode_budget(model.device.type)
    engine = TransformersEngine(model, tokenizer, max_tokens_per_batch=budget)
    identity = _identity(options, model) | {"max_tokens_per_batch": budget}
    opened = _opened(engine, "transformers", tokenizer, model.config, model.generation_config, identity)
    opened.max_tokens_per_batch = budget
    return opened


def _open_parallel(options: EngineOptions, engines: int) -> OpenEngine:
    from open_r1.engine.native.parallel import ParallelEngine

    engine = ParallelEngine(options, visible_devices()[:engines] or [""] * engines)
    return _opened_from_files(lambda _: engine, "native", options, engine.identity)


def _open_vllm(options: EngineOptions) -> OpenEngine:
    from open_r1.engine.vllm.installed import check_installed, version_of_vllm
    from open_r1.engine.vllm.local import LocalServers
    from open_r1.engine.vllm.process import ServerOptions

    check_installed()
    devices, size = visible_devices(), options.tensor_parallel_size
    engines = options.data_parallel_size or max(1, len(devices) // size)
    if idle := devices[engines * size :]:
        logger.warning("GPU %s is idle: there are %d engines on %d GPUs each.", ",".join(idle), engines, size)
    server = ServerOptions(
        model=options.model,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        dtype=options.dtype,
        tensor_parallel_size=size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_seqs=options.max_num_seqs or VLLM_SEQUENCES,
        enforce_eager=options.enforce_eager,
        seed=secrets.randbits(31),
    )
    groups = [devices[i * size : (i + 1) * size] for i in range(engines)]
    identity = {
        "weights": weights_digest(options.model, options.revision),
        "revision": options.revision,
        "dtype": options.dtype,
        "device": "cuda" if devices else "cpu",
        "vllm": version_of_vllm(),
    }
    return _opened_from_files(lambda tokenizer: LocalServers(server, groups, tokenizer), "vllm", options, identity)


def _opened_from_files(
    make: Callable[[PreTrainedTokenizerBase], Engine], name: str, options: EngineOptions, identity: dict[str, Any]
) -> OpenEngine:
    """An engine in other processes; this one reads only the tokenizer and the configurations."""
    from transformers import GenerationConfig

    from open_r1.modeling.loading import load_config, load_generation_config

    tokenizer, checkpoint = _load_tokenizer(options), options.checkpoint
    config = load_config(checkpoint)
    generation = load_generation_config(checkpoint) or GenerationConfig.from_model_config(config)
    return _opened(make(tokenizer), name, tokenizer, config, generation, identity)


def _opened(
    engine: Engine, name: str, tokenizer: Any, config: Any, generation_config: Any, identity: dict[str, Any]
) -> OpenEngine:
    from open_r1.data.chat import render, stop_token_ids
    from open_r1.data.conversations import ConversationRenderer
    from open_r1.modeling.loading import context_length

    return OpenEngine(
        engine=engine,
        name=name,
        context=context_length(config),
        stop_token_ids=stop_token_ids(tokenizer, generation_config),
        render=ConversationRenderer(tokenizer),
        answer_start=render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)[-32:],
        prompt_tokens=len,
        max_tokens_per_batch=None,
        identity=identity,
    )


def _identity(options: EngineOptions, model: Any) -> dict[str, Any]:
    return {
        "weights": weights_digest(options.model, options.revision),
        "revision": options.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def _load_tokenizer(options: EngineOptions) -> Any:
    from open_r1.data.chat import prepare_tokenizer

    return prepare_tokenizer(
        options.model,
        options.revision,
        options.trust_remote_code,
        chat_template_kwargs=options.chat_template_kwargs,
        option="--model",
    )


def _load_model(options: EngineOptions) -> Any:
    import torch

    from open_r1.modeling.architectures import why_unsupported
    from open_r1.modeling.attention import ATTENTION
    from open_r1.modeling.loading import explain_loading_errors, load_causal_lm, load_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: Any = "float32" if options.dtype == "auto" and device == "cpu" else options.dtype
    checkpoint = options.checkpoint
    config = load_config(replace(checkpoint, name=base_name(checkpoint.name)))
    # transformers' own sdpa ignores softcaps (Gemma 2).
    exact = {"attn_implementation": ATTENTION} if why_unsupported(config) is None else {}
    model: Any = load_causal_lm(checkpoint, dtype if dtype == "auto" else getattr(torch, dtype), **exact)
    with explain_loading_errors(checkpoint):
        return model.to(device).eval()


def _open_server(options: EngineOptions) -> OpenEngine:
    from open_r1.engine.openai_engine import OpenAIEngine
    from open_r1.engine.openai_prompts import ServedPrompts, prompt_bound

    assert options.base_url is not None
    engine = OpenAIEngine(
        options.base_url,
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
        render=ServedPrompts(options.chat_template_kwargs),
        prompt_tokens=prompt_bound,
        max_tokens_per_batch=None,
        count_tokens=engine.count_tokens,
    )
