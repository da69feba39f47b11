"""What an engine is: requests in, completions out."""

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from torch import Tensor

from open_r1.errors import UserError

logger = logging.getLogger(__name__)


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

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_p)
        if self.n < 1:
            raise UserError(f"n is {self.n}: expected at least one completion a prompt.")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p is {self.min_p}: expected 0 (off) to 1.")

    @property
    def truncates(self) -> bool:
        """Whether top-p, top-k or min-p leave tokens out."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


@dataclass(frozen=True)
class Request:
    """A prompt, as token ids, as messages for the chat template, or as a server takes it (`messages`, `tools` ...), and
    how to continue it."""

    id: Hashable
    prompt: list[int] | list[Message] | Mapping[str, Any]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """A sampled completion. `token_ids` include the stop token; `logprobs` are those of the sampled tokens under the
    distribution that was sampled from (temperature and truncation applied), None if they were not requested. `experts`,
    if the engine reports them, has a fingerprint per token of the experts that predicted it
    (`modeling.routers.ChosenExperts`)."""

    text: str
    token_ids: list[int] | None
    logprobs: list[float] | None
    finish_reason: Literal["stop", "length", "error"]
    weights_version: int
    experts: list[int] | None = None


def check_sampling(temperature: float, top_p: float) -> None:
    """Raises `UserError` if a value is out of range."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}: expected 0 (greedy) or more.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}: expected more than 0 and at most 1.")


def warn_of_failures(count: int) -> None:
    """Says how many completions of a stream ended with finish reason "error"."""
    if count:
        logger.warning("%d completions ended because their logits were not finite.", count)


def token_count(completion: Completion) -> int | None:
    """Number of tokens, from the ids or from the server's own count; None if neither is known."""
    if completion.token_ids is not None:
        return len(completion.token_ids)
    return getattr(completion, "n_tokens", None)


def request_seed(seed: int, index: int, first: int) -> int:
    """A 31-bit seed that depends only on the run's seed, the problem's index and the index of the first sample."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{first}".encode()).digest()[:4], "big") >> 1


def prompt_ids(request: Request, tokenizer: Any) -> list[int]:
    """The prompt's token ids; messages are rendered by the chat template. Raises `UserError` for an empty prompt."""
    prompt: Any = request.prompt
    if not len(prompt):
        raise UserError(f"request {request.id}: its prompt is empty; give it one token at least.")
    if not isinstance(prompt[0], Mapping):
        return prompt if isinstance(prompt, list) and type(prompt[0]) is int else [int(token) for token in prompt]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)


class Engine:
    """Samples completions, and can follow the weights of a policy that is being trained. A class that has these methods
    is an engine, derived from this one or not.

    `on_tokens` receives the number of new tokens as they are sampled, for progress displays.
    """

    on_tokens: Callable[[int], None] | None = None

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish; reads new requests only when there is room."""
        raise NotImplementedError

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`stream`, collected in the order of `requests` (whose ids must be distinct)."""
        finished = dict(self.stream(requests))
        return [finished[r.id] for r in requests]

    def need(self, tokens: int) -> None:
        """Makes room for requests of up to `tokens` tokens, prompt and completion together."""

    def start(self, sampling: Sampling | None = None) -> None:
        """Starts now what would otherwise start with the first request: processes, CUDA graphs for `sampling`."""

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Takes the policy's weights (Hugging Face names). Collective: every rank calls it."""
        raise UserError(f"{type(self).__name__} keeps the weights that it started with: train with another engine.")

    def sleep(self) -> None:
        """Frees accelerator memory until `wake`."""

    def wake(self) -> None:
        """Undoes `sleep`."""

    def close(self) -> None:
        """Frees everything; the engine cannot be used afterwards."""
