"""Plans all requests of a benchmark before the first one is made.

Only the settings decide which requests share a batch, so that a resumed run ends like an uninterrupted one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from open_r1.data.conversations import Conversation, warn_of_losses, with_system_prompt
from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import request_seed
from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem
from open_r1.evaluation.protocol import Protocol
from open_r1.sampling.requests import SampleRequest, samples_per_request


def plan(problems: Sequence[BenchmarkProblem], engine: OpenEngine, protocol: Protocol) -> list[SampleRequest]:
    """The requests, in the order in which they are made. Raises `UserError` for a prompt that does not fit."""
    requests, before = [], Counter(engine.lost)
    for problem in problems:
        prompt = engine.render(conversation_of(problem, protocol), f"problem {problem.id}")
        length = engine.prompt_tokens(prompt)
        room = protocol.max_new_tokens if engine.context is None else engine.context - length
        if room < 1:
            raise UserError(
                f"problem {problem.id}: its prompt has {length:,} tokens, and the model's context {engine.context:,}: "
                "use a model with a longer context, or remove the problem."
            )
        limit = min(protocol.max_new_tokens, room)
        count = min(protocol.num_samples, samples_per_request(engine, length + limit))
        for first in range(0, protocol.num_samples, count):
            seed = request_seed(protocol.seed, problem.index, first)
            left = protocol.num_samples - first
            requests.append(SampleRequest(problem, first, min(count, left), prompt, length, limit, seed))
    warn_of_losses("benchmark", Counter(engine.lost) - before, len(problems), "problems")
    return sorted(requests, key=lambda r: (-r.max_tokens, -r.prompt_tokens, r.problem.index, r.first))


def conversation_of(problem: BenchmarkProblem, protocol: Protocol) -> Conversation:
    """The conversation that asks `problem`, whose own system prompt comes first."""
    conversation = problem.conversation or Conversation([{"role": "user", "content": problem.prompt}])
    return replace(conversation, messages=with_system_prompt(conversation.messages, protocol.system_prompt))


def cut_short(requests: Sequence[SampleRequest], engine: OpenEngine, protocol: Protocol) -> str | None:
    """A sentence if the context leaves fewer tokens for completions than the protocol allows."""
    shortest = min(request.max_tokens for request in requests)
    if shortest >= protocol.max_new_tokens:
        return None
    return (
        f"max_new_tokens {protocol.max_new_tokens:,} does not fit the model's context of {engine.context:,} tokens: "
        f"answers are limited to {shortest:,} tokens or more, depending on the prompt."
    )
