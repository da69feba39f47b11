"""How answers are sampled. Every figure is recorded with the results."""

from dataclasses import dataclass

from open_r1.engine.protocol import check_sampling
from open_r1.errors import UserError
from open_r1.evaluation.problems import Task

PROTOCOLS = ("deepseek", "greedy")


@dataclass(frozen=True)
class Protocol:
    """`num_samples` answers per problem, each of at most `max_new_tokens` tokens.

    `deepseek` is that of the R1 report (arXiv 2501.12948, section 4): temperature 0.6, top-p 0.95, up to 64
    samples per problem and 32,768 new tokens, no system prompt. `greedy` takes the likeliest token, once.
    """

    name: str
    num_samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int = 0
    system_prompt: str | None = None


def protocol_for(
    task: Task,
    name: str = "deepseek",
    *,
    num_samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    system_prompt: str | None = None,
) -> Protocol:
    """The task's sampling under protocol `name`, with what is given in its place. Raises `UserError`."""
    if name not in PROTOCOLS:
        raise UserError(f"protocol is {name!r}: expected one of {', '.join(PROTOCOLS)}.")
    greedy = name == "greedy"
    protocol = Protocol(
        name=name,
        num_samples=(1 if greedy else task.samples) if num_samples is None else num_samples,
        temperature=(0.0 if greedy else 0.6) if temperature is None else temperature,
        top_p=(1.0 if greedy else 0.95) if top_p is None else top_p,
        max_new_tokens=task.max_new_tokens if max_new_tokens is None else max_new_tokens,
        seed=seed,
        system_prompt=system_prompt,
    )
    _check(protocol)
    return protocol


def _check(protocol: Protocol) -> None:
    if protocol.num_samples < 1:
        raise UserError(f"num_samples is {protocol.num_samples}: expected at least 1.")
    if protocol.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {protocol.max_new_tokens}: expected at least 1.")
    check_sampling(protocol.temperature, protocol.top_p)
    if protocol.temperature == 0 and protocol.num_samples > 1:
        raise UserError(
            f"num_samples is {protocol.num_samples} at temperature 0, where all samples are the same: give "
            "--num-samples 1 or a temperature."
        )
