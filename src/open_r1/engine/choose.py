"""Opens the engine that a command asks for, with what is needed to talk to it."""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from open_r1.engine.protocol import Engine, Message
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

ENGINES = ("auto", "native", "transformers", "vllm", "openai")
DTYPES = ("auto", "float32", "bfloat16", "float16")
GPU_MEMORY, CPU_MEMORY = 0.9, 0.4
"""Share of the memory that vLLM takes, unless told otherwise."""
NATIVE_MEMORY = 0.6
"""Share of the memory that the native engine's keys and values may take, unless told otherwise."""


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and where its model is."""

    model: str
    """Hub id or local folder; with an OpenAI-compatible server, the name under which it serves the model."""
    engine: str = "auto"
    """`auto` takes the server if `base_url` is given, else vLLM on GPUs where it is installed, else transformers."""
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    """`auto`: float32 on a CPU, that of the checkpoint elsewhere."""
    max_tokens_per_batch: int | None = None
    """transformers: prompt and completion tokens decoded at once (default 8,192 on a CPU, 65,536 elsewhere)."""
    tensor_parallel: int = 1
    """vllm: GPUs that share one engine."""
    data_parallel: int | None = None
    """vllm: engines, each on `tensor_parallel` GPUs of its own. Default: as many as the GPUs allow."""
    engines_per_gpu: int = 1
    """vllm: engines that take turns on each GPU."""
    gpu_memory_utilization: float | None = None
    """vllm: share of each GPU's memory (default 0.9), or of the machine's without a GPU (default 0.4); native: at most
    that share for keys and values (default 0.6)."""
    max_num_seqs: int = 512
    """vllm, native: completions that one engine decodes at once."""
    enforce_eager: bool = False
    """vllm: no compilation and no CUDA graphs; native: no compilation."""
    base_url: str | None = None
    """OpenAI-compatible server, such as http://localhost:8000/v1, or several with commas between; the key is read from
    OPENAI_API_KEY."""
    concurrency: int = 64
    """Requests under way at all servers together."""
    tries: int = 6
    """Times that a request is sent to a server before it is given up."""
    timeout: float = 3600.0
    """Seconds that an answer may take."""


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
    if options.engine not in ENGINES:
        raise UserError(f"engine is {options.engine!r}: expected one of {', '.join(ENGINES)}.")
    if options.engine == "openai" and options.base_url is None:
        raise UserError("engine is openai: give --base-url, such as http://localhost:8000/v1.")
    if options.engine in ("native", "transformers", "vllm") and options.base_url is not None:
        raise UserError(f"base_url is given, but engine is {options.engine}: leave one of them out.")
    adapters = _adapters_only(options.model)
    if options.engine == "vllm" and adapters:
        raise UserError(
            f"model {options.model}: the folder holds LoRA adapters only, and vLLM needs whole weights: give "
            "--engine transformers, or a folder with merged weights."
        )
    automatic = options.engine == "auto" and options.base_url is None and not adapters
    on_vllm = options.engine == "vllm" or (automatic and _vllm_on_gpus())
    if not on_vllm and (options.tensor_parallel > 1 or (options.data_parallel or 1) > 1):
        raise UserError(
            f"tensor_parallel is {options.tensor_parallel} and data_parallel {options.data_parallel or 1}, which only "
            "vLLM on GPUs can do: leave them out, or give --engine vllm where it is installed."
        )
    if options.base_url is not None:
        return _open_server(options, options.base_url)
    if on_vllm:
        return _open_vllm(options)
    return _open_native(options) if options.engine == "native" else _open_transformers(options)


def context_length(config: Any) -> int | None:
    """Positions that a model's configuration allows for; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def decode_budget(device_type: str) -> int:
    """Tokens that the transformers engine decodes at once, unless told otherwise."""
    return 8192 if device_type == "cpu" else 65536


def weights_digest(model: str) -> str | None:
    """Short SHA-256 of a local folder's weight files: their names and sizes and the ends of each, so that it is
    quick for any size; None for a hub id."""
    files = sorted(Path(model).expanduser().glob("*.safetensors")) or sorted(Path(model).expanduser().glob("*.bin"))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _open_transformers(options: EngineOptions) -> OpenEngine:
    from open_r1.data.chat import encode, prepare_tokenizer, render, stop_token_ids
    from open_r1.engine.transformers_engine import TransformersEngine

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
            "weights": weights_digest(options.model),
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


def _adapters_only(model: str) -> bool:
    folder = Path(model).expanduser()
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists()


def _vllm_on_gpus() -> bool:
    import torch

    from open_r1.engine.vllm_engine import version_of_vllm

    return torch.cuda.is_available() and version_of_vllm() is not None


def _open_vllm(options: EngineOptions) -> OpenEngine:
    from transformers import AutoConfig, GenerationConfig

    from open_r1.data.chat import encode, prepare_tokenizer, render, stop_token_ids
    from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions, version_of_vllm, visible_devices

    tokenizer = prepare_tokenizer(options.model, options.revision, options.trust_remote_code, option="--model")
    hub = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    with _explained(options.model):
        config = AutoConfig.from_pretrained(options.model, **hub)
    try:
        generation = GenerationConfig.from_pretrained(options.model, revision=options.revision or "main")
    except OSError:  # not every model has the file
        generation = GenerationConfig.from_model_config(config)
    devices = visible_devices()
    wanted = (options.data_parallel or 1) * options.tensor_parallel
    if wanted > max(1, len(devices)):
        raise UserError(
            f"data_parallel {options.data_parallel or 1} x tensor_parallel {options.tensor_parallel} needs {wanted} "
            f"GPUs, and {len(devices)} are visible: lower --data-parallel-size or --tensor-parallel-size, or name more "
            "in CUDA_VISIBLE_DEVICES."
        )
    engines = options.data_parallel or max(1, len(devices) // options.tensor_parallel)
    if idle := devices[engines * options.tensor_parallel :]:
        devices = devices[: engines * options.tensor_parallel]
        logger.warning(
            "GPU %s is left idle: %d engines on %d GPUs each.", ",".join(idle), engines, options.tensor_parallel
        )
    engine = VLLMEngine(
        VLLMOptions(
            model=options.model,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            dtype=options.dtype,
            devices=tuple(devices),
            tensor_parallel=options.tensor_parallel,
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
            "weights": weights_digest(options.model),
            "revision": options.revision,
            "dtype": options.dtype,
            "device": "cuda" if devices else "cpu",
            "vllm": version_of_vllm(),
        },
    )


@contextlib.contextmanager
def _explained(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, HFValidationError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model {model}: it cannot be loaded: {reason}") from error


def _load_model(options: EngineOptions) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    if options.dtype not in DTYPES:
        raise UserError(f"dtype is {options.dtype!r}: expected one of {', '.join(DTYPES)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: Any = options.dtype
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
    elif device == "cpu":
        dtype = torch.float32
    folder = Path(options.model).expanduser()
    with _explained(options.model):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder) if folder.is_dir() else options.model,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            dtype=dtype,
            output_loading_info=True,
        )
        model = loaded[0].to(device).eval()
    if missing := sorted(loaded[1]["missing_keys"]):
        raise UserError(
            f"model {options.model}: the weights lack {len(missing)} tensors of the model, {missing[0]} first, which "
            "would be random: get the whole checkpoint."
        )
    return model


def _open_server(options: EngineOptions, base_url: str) -> OpenEngine:
    from open_r1.engine.openai_engine import OpenAIEngine, prompt_bound

    engine = OpenAIEngine(
        base_url, options.model, concurrency=options.concurrency, tries=options.tries, timeout=options.timeout
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
