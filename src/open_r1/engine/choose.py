"""Opens the engine that a command asks for, with what is needed to talk to it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_r1.engine.protocol import Engine, Message
from open_r1.errors import UserError

ENGINES = ("auto", "transformers", "openai")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and where its model is."""

    model: str
    """Hub id or local folder; with an OpenAI-compatible server, the name under which it serves the model."""
    engine: str = "auto"
    """`auto` takes the server if `base_url` is given, else transformers."""
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    """`auto`: float32 on a CPU, that of the checkpoint elsewhere."""
    max_tokens_per_batch: int | None = None
    """transformers: prompt and completion tokens decoded at once (default 8,192 on a CPU, 65,536 elsewhere)."""
    base_url: str | None = None
    """OpenAI-compatible server, such as http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    concurrency: int = 64
    """Requests under way at a server."""


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

    def watch(self, on_tokens: Callable[[int], None] | None) -> None:
        """Has the engine tell `on_tokens` of new tokens as they are written."""
        self.engine.on_tokens = on_tokens  # type: ignore[attr-defined]


def open_engine(options: EngineOptions) -> OpenEngine:
    """The engine of `options`. Raises `UserError`."""
    if options.engine not in ENGINES:
        raise UserError(f"engine is {options.engine!r}: expected one of {', '.join(ENGINES)}.")
    if options.engine == "openai" and options.base_url is None:
        raise UserError("engine is openai: give --base-url, such as http://localhost:8000/v1.")
    if options.engine == "transformers" and options.base_url is not None:
        raise UserError("base_url is given, but engine is transformers: leave one of them out.")
    if options.base_url is not None:
        return _open_server(options, options.base_url)
    return _open_transformers(options)


def context_length(config: Any) -> int | None:
    """Positions that a model's configuration allows for; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


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

    tokenizer = prepare_tokenizer(options.model, options.revision, options.trust_remote_code)
    model = _load_model(options)
    budget = options.max_tokens_per_batch or (8192 if model.device.type == "cpu" else 65536)
    return OpenEngine(
        engine=TransformersEngine(model, tokenizer, max_tokens_per_batch=budget),
        name="transformers",
        context=context_length(model.config),
        stop_token_ids=stop_token_ids(tokenizer, model.generation_config),
        render=lambda messages: encode(tokenizer, render(tokenizer, messages, add_generation_prompt=True)),
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
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder) if folder.is_dir() else options.model,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            dtype=dtype,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model {options.model}: it cannot be loaded: {reason}") from error
    return model.to(device).eval()


def _open_server(options: EngineOptions, base_url: str) -> OpenEngine:
    from open_r1.engine.openai_engine import OpenAIEngine, prompt_bound

    engine = OpenAIEngine(base_url, options.model, concurrency=options.concurrency)
    return OpenEngine(
        engine=engine,
        name="openai",
        context=engine.check(),
        stop_token_ids=(),
        render=lambda messages: messages,
        prompt_tokens=prompt_bound,
        max_tokens_per_batch=None,
    )
