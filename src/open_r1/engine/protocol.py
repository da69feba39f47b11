"""The interface of an engine: requests in, completions out."""

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar

from torch import Tensor

from open_r1.errors import UserError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Completion `i` of a request has its own random stream, seeded with `(seed, i)`. So results do not depend on the
    other requests in the batch.
    """

    n: int = 1
    """Completions per prompt."""
    temperature: float = 1.0
    """0 is greedy: it takes the most likely token."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens whose probability reaches this value (nucleus sampling, arXiv
    1904.09751)."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0: from all."""
    min_p: float = 0.0
    """Leave out tokens whose probability is below this share of the most likely token's (arXiv 2407.01082)."""
    max_tokens: int = 512
    """Longest completion in tokens, the stop token included."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a completion."""
    seed: int = 0
    """Seed of the random streams."""
    logprobs: bool = True
    """Return the log-probability of each token. Without them the same tokens are sampled, with less work."""

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_p)
        if self.n < 1:
            raise UserError(f"n is {self.n}: expected at least one completion per prompt.")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p is {self.min_p}: expected 0 (off) to 1.")

    @property
    def truncates(self) -> bool:
        """Whether top-p, top-k or min-p exclude tokens."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


@dataclass(frozen=True)
class Request:
    """A prompt, and how to continue it."""

    id: Hashable
    """Identifies the request in the results; must be distinct within a batch."""
    prompt: list[int] | list[Message] | Mapping[str, Any]
    """Token ids, messages for the chat template, or the body of a server's request (`messages`, `tools` and so on)."""
    sampling: Sampling
    """How to sample the completions."""


@dataclass(frozen=True)
class Completion:
    """A sampled completion of T tokens."""

    text: str
    """The text, without the stop token."""
    token_ids: list[int] | None
    """T token ids, the stop token included. None if a server does not report them."""
    logprobs: list[float] | None
    """T natural log-probabilities of the sampled tokens, under the distribution that they were sampled from
    (temperature and truncation applied). None if they were not requested."""
    finish_reason: Literal["stop", "length", "error"]
    """`stop`: it ended with a stop token. `length`: it reached `max_tokens`. `error`: the server gave no answer."""
    weights_version: int
    """Version of the weights that sampled it, as passed to `update_weights`."""
    experts: list[int] | None = None
    """T fingerprints of the experts that predicted each token (`modeling.routers.ChosenExperts`), if the engine reports
    them."""


def check_sampling(temperature: float, top_p: float) -> None:
    """Raises `UserError` if a value is out of range."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}: expected 0 (greedy) or more.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}: expected more than 0 and at most 1.")


def warn_of_failures(count: int) -> None:
    """Says how many completions ended with finish reason "error"."""
    if count:
        logger.warning("%d completions ended because their logits were not finite.", count)


def token_count(completion: Completion) -> int | None:
    """Number of tokens, from the ids or from the server's own count; None if neither is known."""
    if completion.token_ids is not None:
        return len(completion.token_ids)
    return getattr(completion, "n_tokens", None)


def request_seed(seed: int, index: int, first: int) -> int:
    """A 31-bit seed that depends only on the run's seed, the index of the problem, and that of the first sample."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{first}".encode()).digest()[:4], "big") >> 1


def prompt_ids(request: Request, tokenizer: Any, vocabulary: int | None = None) -> list[int]:
    """The prompt's token ids; messages are rendered by the chat template. Raises `UserError` for an empty prompt, and
    for a token beyond `vocabulary`."""
    prompt: Any = request.prompt
    if not len(prompt):
        raise UserError(f"request {request.id}: its prompt is empty; give it one token at least.")
    if isinstance(prompt[0], Mapping):
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    elif type(prompt) is not list or type(prompt[0]) is not int:
        prompt = [int(token) for token in prompt]
    if vocabulary is not None and not 0 <= min(prompt) <= max(prompt) < vocabulary:
        unknown = next(token for token in prompt if not 0 <= token < vocabulary)
        raise UserError(
            f"request {request.id}: its prompt has token {unknown}, and the model has embeddings for {vocabulary:,} "
            "tokens: use the tokenizer that came with the model."
        )
    return prompt


def in_budget(items: Iterable[T], budget: int | None, size: Callable[[T], tuple[int, int]]) -> Iterator[list[T]]:
    """Items to decode together, in order: rows padded to the widest, of at most `budget` tokens (None: any number).
    `size` gives the number of rows of an item, and their width in tokens."""
    batch: list[T] = []
    rows = widest = 0
    for item in items:
        count, width = size(item)
        if batch and budget is not None and (rows + count) * max(widest, width) > budget:
            yield batch
            batch, rows, widest = [], 0, 0
        batch.append(item)
        rows, widest = rows + count, max(widest, width)
    if batch:
        yield batch


class Engine:
    """Samples completions, and can take over the weights of a policy that is being trained.

    Any class with these methods is an engine; it does not have to inherit from this one.

    An engine may have more, which callers look for:

    - `stream_tokens(request)` yields the tokens of one completion as they are sampled (`open-r1 ask`);
    - `on_completion` is called with a request's id and each completion as it ends, so that rewards begin early;
    - `takes_parameter_names`: updates use the names of the model's parameters, not those of its checkpoint;
    - `chosen_experts`: whether completions say which experts predicted their tokens;
    - `max_model_len` and `max_tokens_per_batch`: tokens of the longest request, and of requests decoded together.
    """

    on_tokens: Callable[[int], None] | None = None
    """Called with the number of new tokens as they are sampled, for progress displays."""

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish, in any order.

        It reads new requests only when there is room for them, so `requests` may be lazy and endless.
        """
        raise NotImplementedError

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Returns the completions of each request, in the order of `requests`, whose ids must be distinct."""
        finished = dict(self.stream(requests))
        return [finished[r.id] for r in requests]

    def need(self, tokens: int) -> None:
        """Makes room for requests of up to `tokens` tokens, prompt plus completion."""

    def start(self, sampling: Sampling | None = None) -> None:
        """Starts processes and captures CUDA graphs for `sampling` now instead of at the first request."""

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Loads the policy's weights.

        This is a collective operation: every rank must call it.

        Args:
            named_tensors: Hugging Face names and tensors. With LoRA, the adapters are merged into them.
            version: Reported in `Completion.weights_version` from now on.

        Raises:
            UserError: This engine cannot change its weights.
        """
        raise UserError(f"{type(self).__name__} cannot change its weights: train with another engine.")

    def sleep(self) -> None:
        """Frees accelerator memory until `wake`."""

    def wake(self) -> None:
        """Undoes `sleep`."""

    def close(self) -> None:
        """Frees everything. The engine cannot be used afterwards."""
