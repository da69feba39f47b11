"""Samples of problems as requests to an engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import Request, Sampling, in_budget


@dataclass(frozen=True)
class SampleRequest:
    """`count` samples of `problem` (which has an `index`), numbered from `first` on, as one request."""

    problem: Any
    first: int
    count: int
    prompt: Any
    prompt_tokens: int
    max_tokens: int
    seed: int

    @property
    def keys(self) -> list[tuple[int, int]]:
        """`(index, sample)` of each sample."""
        return [(self.problem.index, self.first + i) for i in range(self.count)]

    def request(self, sampling: Sampling) -> Request:
        """The engine's request; `sampling` has what all requests share."""
        own = replace(sampling, n=self.count, max_tokens=self.max_tokens, seed=self.seed, logprobs=False)
        return Request((self.problem.index, self.first), self.prompt, own)


def samples_per_request(engine: OpenEngine, tokens: int) -> int:
    """How many samples of a problem share a request: all that fit into a batch share a prefill. An engine with its own
    batching gets single samples, so that a resumed run repeats none; it detects equal prompts by itself. `tokens` are
    those of prompt and completion together."""
    budget = engine.max_tokens_per_batch
    return 1 if budget is None else max(1, budget // tokens)


def blocks(requests: Sequence[SampleRequest], budget: int | None) -> Iterator[list[SampleRequest]]:
    """Requests that are decoded together: at most `budget` tokens, prompts padded to the longest; None: all."""
    return in_budget(requests, budget, lambda request: (request.count, request.prompt_tokens + request.max_tokens))
