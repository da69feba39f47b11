"""How answers are sampled. All values are recorded with the results."""

from dataclasses import dataclass
from typing import Annotated

from open_r1.engine.options import Count
from open_r1.errors import UserError
from open_r1.evaluation.problems import Task
from open_r1.options.annotations import Range, check_fields

PROTOCOLS = ("deepseek", "greedy")


@dataclass(frozen=True)
class Protocol:
    """`num_samples` answers per problem, each of at most `max_new_tokens` tokens.

    `deepseek` is that of the R1 report (arXiv 2501.12948, section 4): temperature 0.6, top-p 0.95, up to 64
    samples per problem and 32,768 new tokens, no system prompt. `greedy` takes the most likely token, once.
    """

    name: str
    num_samples: Count
    temperature: Annotated[float, Range(at_least=0)]
    top_p: Annotated[float, Range(above=0, at_most=1)]
    max_new_tokens: Count
    seed: int = 0
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.temperature == 0 and self.num_samples > 1:
            raise UserError(
                f"num_samples is {self.num_samples} at temperature 0, where all samples are the same: give "
                "--num-samples 1 or a temperature."
            )


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
    """The task's sampling under protocol `name`, with the given values replaced. Raises `UserError`."""
    if name not in PROTOCOLS:
        raise UserError(f"protocol is {name!r}: expected one of {', '.join(PROTOCOLS)}.")
    greedy = name == "greedy"
    return Protocol(
        name=name,
        num_samples=(1 if greedy else task.samples) if num_samples is None else num_samples,
        temperature=(0.0 if greedy else 0.6) if temperature is None else temperature,
        top_p=(1.0 if greedy else 0.95) if top_p is None else top_p,
        max_new_tokens=task.max_new_tokens if max_new_tokens is None else max_new_tokens,
        seed=seed,
        system_prompt=system_prompt,
    )
