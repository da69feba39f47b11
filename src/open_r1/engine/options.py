"""Which model writes completions, and through which engine: the options of every command that has a model write."""

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
    """`auto` takes the server if `base_url` is given; on GPUs the native engine, which needs nothing else installed,
    for all models that it can decode with; else vLLM if it is installed; else transformers."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `{enable_thinking: false}`; servers get them too."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: float32 on a CPU, that of the checkpoint elsewhere."""
    max_tokens_per_batch: Annotated[int | None, Range(at_least=1)] = None
    """transformers: prompt and completion tokens decoded at once. Default: 8,192 on a CPU, 65,536 elsewhere."""

    # --- native and vLLM ---
    gpu_memory_utilization: Annotated[float | None, Range(above=0, at_most=1)] = None
    """vllm: share of each GPU's memory (default 0.9), or of the machine's without a GPU (default 0.4). native: at most
    that share for keys and values (default 0.6)."""
    max_num_seqs: Count = 512
    """Completions that one engine decodes at once."""
    enforce_eager: bool = False
    """No compilation (vllm: no CUDA graphs either): starts sooner, decodes slower."""

    data_parallel_size: Annotated[int | None, Range(at_least=1)] = None
    """Engines, each on a GPU (vllm: `tensor_parallel_size` GPUs) of its own. Default: as many as the GPUs allow. native
    on a CPU: processes that share it (default 1)."""
    tensor_parallel_size: Count = 1
    """vllm: GPUs that share one engine."""

    # --- OpenAI-compatible servers ---
    base_url: Annotated[str | None, Alias("vllm_server_url")] = None
    """A server, such as http://localhost:8000/v1, or several with commas between; their key: OPENAI_API_KEY."""
    concurrency: Annotated[int | None, Range(at_least=1)] = None
    """Requests under way at all servers together. Default: 64; `generate` works it out from its own options."""
    timeout: Annotated[float, Range(above=0)] = 3600.0
    """Seconds that an answer may take."""
    retries: Annotated[int, Range(at_least=0)] = 5
    """Times that a request is sent again before it is given up."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the model's files are."""
        return Checkpoint(self.model, self.revision, self.trust_remote_code, option="model")
