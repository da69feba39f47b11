"""Samples completions from the engine's own copy of a model, without host work per token."""

import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from open_r1.engine.native.decoder import Decoder
from open_r1.engine.native.loop import Loop
from open_r1.engine.native.model import NativeModel
from open_r1.engine.native.pages import PagePool, pages_for
from open_r1.engine.native.scheduler import Scheduler
from open_r1.engine.native.slots import check_stops
from open_r1.engine.native.support import check_supported
from open_r1.engine.protocol import Completion, Engine, Request, Sampling, prompt_ids, warn_of_failures
from open_r1.errors import UserError
from open_r1.modeling.compiling import can_compile
from open_r1.modeling.loading import context_length

logger = logging.getLogger(__name__)

NOT_YET: Any = object()
"""Stands for a request that may follow later: running completions continue until then."""
FEWEST_SEQUENCES, MOST_SEQUENCES = 512, 2048
"""Range of the automatic limit of completions decoded at once."""


@dataclass(frozen=True)
class NativeOptions:
    """How many completions the engine decodes at once, and in how much memory."""

    max_num_seqs: int | None = None
    """Completions decoded at once. None: as `automatic_limit` chooses."""
    memory: float = 0.3
    """Largest share of the device's memory for keys and values; the engine takes no more than it needs."""
    page_size: int = 64
    """Tokens of a page of the cache."""
    compile: bool = True
    """Compile decoder layers, on CUDA if there is a compiler: starts later, decodes faster."""
    release_memory: bool = False
    """Let `sleep` free the cache; `wake` then allocates it and captures the graphs again."""


class NativeEngine(Engine):
    """Decodes with `model`, which the engine takes over. It starts when first used, or with `start`.

    `max_model_len` is the longest prompt with its completion, in tokens; it may grow, which restarts the engine.
    `on_completion` receives the request's id and each completion as it ends. Raises `UserError` for models that the
    engine cannot run.
    """

    takes_parameter_names = True
    """Updates use the names of the model's parameters, not those of its checkpoint as for other engines."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_model_len: int,
        options: NativeOptions | None = None,
    ) -> None:
        check_supported(model.config)
        self.options = options or NativeOptions()
        self.model, self.tokenizer, self.max_model_len = NativeModel(model), tokenizer, max_model_len
        self.on_completion: Callable[[Hashable, Completion], None] | None = None
        self.version = 0
        self._loop: Loop | None = None
        self._chosen_limit = 0

    def start(self, sampling: Sampling | None = None) -> None:
        """Allocates the cache, and captures the graphs for `sampling` now rather than when they are first needed.
        Raises `UserError` if there is too little memory."""
        if self._loop is None:
            self._loop = self._open()
        if sampling is not None:
            self._loop.decoder.prepare(sampling.truncates)

    @property
    def loop(self) -> Loop:
        """The decoding loop; starts the engine if it has not started."""
        self.start()
        assert self._loop is not None
        return self._loop

    def need(self, tokens: int) -> None:
        """Makes room for `tokens` tokens of prompt plus completion."""
        if tokens > self.max_model_len:
            self.max_model_len = tokens
            self._free()

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`. Reads ahead as many requests as can run at once. At `NOT_YET` among the requests, it
        continues the running completions, if there are any, before it reads the next request."""
        source = iter(requests)
        request = next(source, None)
        loop = self.loop
        failures = loop.failures
        try:
            while request is not None or loop.busy:
                while request is not None and loop.has_room:
                    if request is NOT_YET:
                        request = next(source, None)
                        break
                    prompt = self._prompt(request)
                    limit = self._limit(request, prompt)
                    if limit and len(prompt) + limit > self.max_model_len:
                        if loop.busy:
                            break
                        self.need(len(prompt) + limit)
                        loop, failures = self.loop, failures - loop.failures
                    loop.add(request.id, prompt, request.sampling, limit)
                    request = next(source, None)
                loop.version, loop.on_tokens, loop.on_completion = self.version, self.on_tokens, self.on_completion
                loop.turn()
                yield from loop.take()
        finally:
            loop.clear()
        warn_of_failures(loop.failures - failures)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`stream`, collected in the order of `requests` (whose ids must be distinct)."""
        if requests:
            prompts = [self._prompt(r) for r in requests]
            limits = [self._limit(r, p) for r, p in zip(requests, prompts, strict=True)]
            self.need(max(len(p) + limit if limit else 1 for p, limit in zip(prompts, limits, strict=True)))
        return super().generate(requests)

    def stream_tokens(self, request: Request) -> Iterator[list[int]]:
        """Yields the tokens of a completion as they are sampled, several at a time, without the stop token. Closing the
        iterator ends the completion."""
        prompt = self._prompt(request)
        limit = self._limit(request, prompt)
        self.need(len(prompt) + limit)
        loop, failures = self.loop, self.loop.failures
        loop.version, loop.on_tokens, loop.on_completion, loop.follow = self.version, None, None, True
        loop.add(request.id, prompt, replace(request.sampling, n=1), limit)
        given = 0
        try:
            while loop.busy:
                loop.turn()
                finished = [completion for _, [completion] in loop.take()]
                for completion in finished:
                    tokens = completion.token_ids or []
                    yield tokens[given : len(tokens) - (completion.finish_reason == "stop")]
                for rollout in loop.scheduler.running:
                    yield rollout.tokens[given:]
                    given = len(rollout.tokens)
        finally:
            loop.follow = False
            loop.clear()
        warn_of_failures(loop.failures - failures)

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copies the policy's weights into the engine's, in place."""
        self.model.load(named_tensors)
        self.version = version

    def sleep(self) -> None:
        """Frees the cache if `release_memory` is set; otherwise keeps it, so that waking costs nothing."""
        if self.options.release_memory:
            self._free()

    def wake(self) -> None:
        """Allocates the cache again."""
        if self.options.release_memory:
            self.start()

    def close(self) -> None:
        """Frees the cache and the graphs."""
        self._free()

    def _open(self) -> Loop:
        options, size = self.options, self.options.page_size
        each, affordable = pages_for(self.max_model_len, size), self._affordable_pages()
        slots = options.max_num_seqs or self._choose_limit(each, affordable)
        pages = min(slots * each, affordable) + 1
        if pages <= each:
            raise UserError(
                f"Prompt plus completion may have {self.max_model_len:,} tokens, but their keys and values take "
                f"{each * self.model.cache_bytes(size) / 2**30:.2g} GiB, more than a share of {options.memory:g} of "
                "the memory: raise gpu_memory_utilization (grpo: vllm_gpu_memory_utilization), or lower the number of "
                "tokens."
            )
        compiles = self.model.device.type == "cuda" and options.compile and can_compile()
        compiler = functools.partial(torch.compile, dynamic=True) if compiles else None
        decoder = Decoder(self.model, slots, each * size, pages, size, compiler)
        return Loop(decoder, Scheduler(slots, PagePool(pages), size), self.tokenizer)

    def _choose_limit(self, each: int, affordable: int) -> int:
        """The automatic limit, logged whenever it changes. On a CPU, more rows at once are not faster."""
        if self.model.device.type != "cuda":
            return FEWEST_SEQUENCES
        limit = automatic_limit(each, affordable)
        if limit != self._chosen_limit:
            self._chosen_limit = limit
            logger.warning("The native engine decodes up to %s completions at once (max_num_seqs).", f"{limit:,}")
        return limit

    def _free(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None
            self.model.free_cache()
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _affordable_pages(self) -> int:
        if self.model.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.model.device)
        else:
            memory = psutil.virtual_memory()
            free, total = memory.available, memory.total
        # Free memory is also needed for prefills, logits and graphs.
        return int(min(0.8 * free, total * self.options.memory)) // self.model.cache_bytes(self.options.page_size)

    def _prompt(self, request: Request) -> list[int]:
        embeddings: Any = self.model.model.get_input_embeddings()
        return prompt_ids(request, self.tokenizer, embeddings.num_embeddings)

    def _limit(self, request: Request, prompt: list[int]) -> int:
        """The completion's limit in tokens: no position beyond the model's context."""
        check_stops(request.sampling.stop_token_ids)
        context = context_length(self.model.model.config) or 2**31
        return max(0, min(request.sampling.max_tokens, context - len(prompt)))


def automatic_limit(each: int, affordable: int) -> int:
    """Completions to decode at once if the longest takes `each` of `affordable` pages: as many as the pages hold
    if each is half as long as the longest, because running completions are half done on average.

    The scheduler never admits more than the pages hold, so a limit that is too high costs only the state of its slots
    and a few graphs. `FEWEST_SEQUENCES` leaves room for completions that are much shorter than the longest.
    """
    return max(FEWEST_SEQUENCES, min(MOST_SEQUENCES, 2 * affordable // each))
