"""The options of every command that samples from a model: which model, and which engine."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from open_r1.modeling.checkpoint import Checkpoint
from open_r1.options.annotations import Alias, Range, check_fields

Count = Annotated[int, Range(at_least=1)]


@dataclass(frozen=True)
class EngineOptions:
    """Model and engine."""

    model: str
    """Hub id or local folder; with an OpenAI-compatible server, the name under which it serves the model."""
    engine: Literal["auto", "native", "transformers", "vllm", "openai"] = "auto"
    """`auto` uses the server if `base_url` is given. On GPUs it uses the native engine, which needs no other package,
    for every model that it supports; else vLLM if it is installed; else transformers."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    trust_remote_code: bool = False
    """Run model code that ships with the checkpoint."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `{enable_thinking: false}`; they are also sent to servers."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision. `auto`: float32 on a CPU, else the checkpoint's."""
    max_tokens_per_batch: Annotated[int | None, Range(at_least=1)] = None
    """transformers: maximum number of prompt and completion tokens that are decoded at once. Default: 8,192 on a CPU,
    65,536 elsewhere."""

    # --- native and vLLM ---
    gpu_memory_utilization: Annotated[float | None, Range(above=0, at_most=1)] = None
    """vllm: share of each GPU's memory (default 0.9), or without a GPU of the machine's memory (default 0.4). native:
    maximum share of GPU memory for the cache (default 0.6)."""
    max_num_seqs: Annotated[int | None, Range(at_least=1)] = None
    """Maximum number of completions that one engine decodes at once. Default: 512; native on a GPU: up to 2,048, if the
    cache holds that many, each half as long as the longest."""
    enforce_eager: bool = False
    """Do not compile (vllm: do not use CUDA graphs either): starts faster, decodes slower."""

    data_parallel_size: Annotated[int | None, Range(at_least=1)] = None
    """Number of engines, each on its own GPU (vllm: on `tensor_parallel_size` GPUs). Default: as many as the GPUs
    allow; on a CPU, 1 (native: processes that share the CPU)."""
    tensor_parallel_size: Count = 1
    """vllm: GPUs per engine."""

    # --- OpenAI-compatible servers ---
    base_url: Annotated[str | None, Alias("vllm_server_url")] = None
    """URL of a server, such as http://localhost:8000/v1, or several, separated by commas. Their key: OPENAI_API_KEY."""
    concurrency: Annotated[int | None, Range(at_least=1)] = None
    """Maximum number of requests in progress, over all servers. Default: 64; `generate` computes it from its own
    options."""
    timeout: Annotated[float, Range(above=0)] = 3600.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, Range(at_least=0)] = 5
    """Maximum number of retries of a failed request."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the model's files are."""
        return Checkpoint(self.model, self.revision, self.trust_remote_code, option="model")
