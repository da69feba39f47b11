"""What our engines say to vLLM's processes, workers and servers."""

from array import array
from dataclasses import dataclass
from typing import Any

from open_r1.engine.protocol import Sampling


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker's engine is made of."""

    model: str
    max_model_len: int
    max_num_seqs: int
    gpu_memory_utilization: float
    seed: int
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    tensor_parallel: int = 1
    enforce_eager: bool = False
    sleep_mode: bool = False
    logprobs: bool = True


@dataclass(frozen=True)
class Job:
    """`n` completions of a prompt. Keys of completions are `first_key, first_key + 1, ...`."""

    first_key: int
    prompt_ids: list[int]
    n: int
    sampling: dict[str, Any]
    """Arguments of vLLM's `SamplingParams`."""


@dataclass(frozen=True)
class Finished:
    """A completion: `token_ids` as int32, `logprobs` as float32, empty if not asked for."""

    key: int
    token_ids: array
    logprobs: array
    finish_reason: str


def sampling_arguments(sampling: Sampling, max_tokens: int, seeded: bool) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`, for completions that end at the tokens of `sampling` alone."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "max_tokens": max_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        "seed": sampling.seed if seeded else None,
        "ignore_eos": True,
        "detokenize": False,
        "logprobs": 0 if sampling.logprobs else None,
    }
