"""Cuts a benchmark into requests, before the first is made.

Each request is decoded in a batch whose make-up the settings alone decide, so that a resumed run ends like one that
was not interrupted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from open_r1.engine.choose import OpenEngine
from open_r1.engine.protocol import Message, request_seed
from open_r1.errors import UserError
from open_r1.evaluation.protocol import Protocol
from open_r1.evaluation.tasks import Problem


@dataclass(frozen=True)
class Ask:
    """`count` samples of a problem from number `first` on, as one request."""

    problem: Problem
    first: int
    count: int
    prompt: Any
    prompt_tokens: int
    max_tokens: int
    seed: int

    @property
    def keys(self) -> list[tuple[int, int]]:
        return [(self.problem.index, self.first + i) for i in range(self.count)]


def plan(problems: Sequence[Problem], engine: OpenEngine, protocol: Protocol) -> list[Ask]:
    """The requests, in the order in which they are made. Raises `UserError` for a prompt that does not fit."""
    asks = []
    for problem in problems:
        prompt = engine.render(messages_of(problem, protocol))
        length = engine.prompt_tokens(prompt)
        room = protocol.max_new_tokens if engine.context is None else engine.context - length
        if room < 1:
            raise UserError(
                f"problem {problem.id}: its prompt has {length:,} tokens, and the model's context {engine.context:,}: "
                "take a model with a longer context, or leave the problem out."
            )
        limit = min(protocol.max_new_tokens, room)
        count = _samples_a_request(engine, protocol, length + limit)
        for first in range(0, protocol.num_samples, count):
            seed = request_seed(protocol.seed, problem.index, first)
            asks.append(Ask(problem, first, min(count, protocol.num_samples - first), prompt, length, limit, seed))
    return sorted(asks, key=lambda ask: (-ask.max_tokens, -ask.prompt_tokens, ask.problem.index, ask.first))


def messages_of(problem: Problem, protocol: Protocol) -> list[Message]:
    """The conversation that asks `problem`."""
    system: list[Message] = [{"role": "system", "content": protocol.system_prompt}] if protocol.system_prompt else []
    return [*system, {"role": "user", "content": problem.prompt}]


def blocks(asks: Sequence[Ask], budget: int | None) -> Iterator[list[Ask]]:
    """Requests that are decoded together: at most `budget` tokens, prompts padded to the longest; None: all."""
    block: list[Ask] = []
    rows = width = 0
    for ask in asks:
        grown = max(width, ask.prompt_tokens + ask.max_tokens)
        if block and budget is not None and (rows + ask.count) * grown > budget:
            yield block
            block, rows, grown = [], 0, ask.prompt_tokens + ask.max_tokens
        block.append(ask)
        rows, width = rows + ask.count, grown
    if block:
        yield block


def _samples_a_request(engine: OpenEngine, protocol: Protocol, tokens: int) -> int:
    """All that fit into a batch share a prefill; a server gets each as a request of its own."""
    if engine.max_tokens_per_batch is None:
        return 1
    return max(1, min(protocol.num_samples, engine.max_tokens_per_batch // tokens))


def cut_short(asks: Sequence[Ask], engine: OpenEngine, protocol: Protocol) -> str | None:
    shortest = min(ask.max_tokens for ask in asks)
    if shortest >= protocol.max_new_tokens:
        return None
    return (
        f"max_new_tokens {protocol.max_new_tokens:,} does not fit the model's context of {engine.context:,} tokens: "
        f"an answer may have {shortest:,} tokens, or what its prompt leaves."
    )
