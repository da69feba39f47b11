"""What it takes to write completions: the contract between those who ask and those who generate."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from torch import Tensor

from open_r1.errors import UserError


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How to sample: `n` completions a prompt, each of at most `max_tokens` tokens.

    `temperature` 0 is greedy. Completion `i` of a request draws from a random stream of its own, given by
    `(seed, i)`, so results do not depend on what else is in the batch. Without `logprobs` the same tokens are drawn,
    for less work.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 512
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    logprobs: bool = True


@dataclass(frozen=True)
class Request:
    """A prompt, as token ids or as messages for the chat template, and how to continue it."""

    id: Hashable
    prompt: list[int] | list[Message]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """What was written: `token_ids` include the stop token; `logprobs` are those of the sampled tokens under
    the distribution that was sampled from (temperature and truncation applied), None if they were not asked for.
    `experts`, where an engine tells, is for each token a number of the experts that predicted it
    (`modeling.routers.ChosenExperts`)."""

    text: str
    token_ids: list[int] | None
    logprobs: list[float] | None
    finish_reason: Literal["stop", "length", "error"]
    weights_version: int
    experts: list[int] | None = None


def check_sampling(temperature: float, top_p: float) -> None:
    """Raises `UserError` for what cannot be sampled with."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}: expected 0 (greedy) or more.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}: expected more than 0 and at most 1.")


def token_count(completion: Completion) -> int | None:
    """Tokens of a completion, as its ids or the server's own count say; None if neither is there."""
    if completion.token_ids is not None:
        return len(completion.token_ids)
    return getattr(completion, "n_tokens", None)


def request_seed(seed: int, index: int, first: int) -> int:
    """A 31-bit seed that depends on the run's seed, the problem and the number of the first sample alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{first}".encode()).digest()[:4], "big") >> 1


class Engine(Protocol):
    """Writes completions, and can follow the weights of a policy that is being trained."""

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish; takes new requests only as it has room."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`stream`, collected in the order of `requests`."""
        ...

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Takes the policy's weights (Hugging Face names). Collective: every rank calls it."""
        ...

    def sleep(self) -> None:
        """Gives accelerator memory back until `wake`."""
        ...

    def wake(self) -> None:
        """Undoes `sleep`."""
        ...

    def close(self) -> None:
        """Frees everything; the engine is of no use afterwards."""
        ...
