"""Stands in for the package vllm in a worker process: an engine that writes what the test can tell it by.

A completion is the first GPU of its engine, the engine's seed, then the first token of its prompt over and over,
`FAKE_VLLM_STEP` tokens a step (default 1).
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

__version__ = "0.31.0"


class EngineArgs:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments


class SamplingParams:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments


@dataclass
class Running:
    request_id: str
    prompt: list[int]
    limit: int
    written: int = 0


class LLMEngine:
    def __init__(self, arguments: dict[str, Any]) -> None:
        if arguments["tensor_parallel_size"] > 2:
            raise ValueError(
                "1 validation error for VllmConfig\n  Value error, 9 heads. [type=value_error]\n  For more"
            )
        if said := os.environ.get("FAKE_VLLM_FAILS"):
            raise AssertionError(said)
        self.arguments, self.running = arguments, []
        self.mark = [int(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]), arguments["seed"]]
        self.step_size = int(os.environ.get("FAKE_VLLM_STEP", "1"))
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(dtype=f"torch.{arguments['dtype']}"))
        self.input_processor = self.engine_core = self

    @classmethod
    def from_engine_args(cls, given: EngineArgs) -> "LLMEngine":
        return cls(given.arguments)

    def shutdown(self) -> None:
        Path(os.environ["FAKE_VLLM_CLOSED"]).touch()

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def process_inputs(self, request_id: str, prompt: Any, params: SamplingParams, supported_tasks: Any) -> Running:
        assert params.arguments["seed"] is None  # there are GPUs here
        return Running(request_id, prompt["prompt_token_ids"], params.arguments["max_tokens"])

    def add_request(self, request: Running) -> None:
        self.running.append(request)

    def abort_requests(self, request_ids: list[str]) -> None:
        self.running = []

    def get_output(self) -> SimpleNamespace:
        outputs = []
        for request in self.running[: self.arguments["max_num_seqs"]]:
            end = min(request.written + self.step_size, request.limit)
            places = range(request.written, end)
            tokens = [self.mark[place] if place < 2 else request.prompt[0] for place in places]
            request.written = end
            reason = "length" if request.written == request.limit else None
            outputs.append(
                SimpleNamespace(
                    request_id=request.request_id, new_token_ids=tokens, new_logprobs=None, finish_reason=reason
                )
            )
        self.running = [request for request in self.running if request.written < request.limit]
        return SimpleNamespace(outputs=outputs)


for name, members in (
    ("engine", ()),
    ("engine.arg_utils", (EngineArgs,)),
    ("v1", ()),
    ("v1.engine", ()),
    ("v1.engine.llm_engine", (LLMEngine,)),
):
    module = ModuleType(f"vllm.{name}")
    module.__dict__.update({member.__name__: member for member in members})
    sys.modules[module.__name__] = module
