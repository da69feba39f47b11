"""Completions from a transformers model, on CPU or GPU: in batches, with one prefill per prompt."""

import itertools
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from open_r1.data.chat import pad_token_id
from open_r1.engine.drawing import invert, uniform_streams
from open_r1.engine.protocol import Completion, Engine, Request, Sampling, in_budget, prompt_ids, warn_of_failures
from open_r1.modeling.loading import context_length
from open_r1.modeling.mixers import use_plain_functions
from open_r1.modeling.rope import forget_lengths, length_rule
from open_r1.modeling.routers import ChosenExperts

WINDOW = 4096
"""Number of requests read together, so that prompts of similar length can share a batch."""
T = TypeVar("T")
Steps = Generator[tuple[Tensor, Tensor], None, T]
"""Decoding steps: the tokens of the rows that go on, and which of them stop there; then a result."""


class TransformersEngine(Engine):
    """Decodes with `model` itself, whose weights it shares: an update costs nothing.

    `max_tokens_per_batch` bounds prompt plus completion tokens decoded at once (memory for keys and values).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens_per_batch: int = 65536,
    ) -> None:
        use_plain_functions(model)
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens_per_batch = max_tokens_per_batch
        self.version = 0
        self.chosen_experts = ChosenExperts(model)
        embeddings: Any = model.get_input_embeddings()
        self._vocabulary: int = embeddings.num_embeddings
        self._rule = length_rule(model.config)
        self._boundary = None if self._rule is None else self._rule.original

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`. Reads at most `WINDOW` requests ahead."""
        iterator = iter(requests)
        while window := list(itertools.islice(iterator, WINDOW)):
            prompts = [(r, self._prompt(r)) for r in window]
            for request in (r for r, ids in prompts if self._limit(r, ids) < 1):
                yield request.id, self._completions([Row([], [], "length", [])] * request.sampling.n, request.sampling)
            for batch in self._batches([item for item in prompts if self._limit(*item) > 0]):
                yield from self._decode(batch)

    @torch.inference_mode()
    def stream_tokens(self, request: Request) -> Iterator[list[int]]:
        """Yields the tokens of a completion as they are sampled, without the stop token."""
        one, prompt = replace(request, sampling=replace(request.sampling, n=1)), self._prompt(request)
        if self._limit(one, prompt) < 1:
            return
        with self._evaluating():
            for tokens, stops in self._decode_rows([(one, prompt)]):
                yield tokens[~stops].tolist()

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Only records the version: the weights are the trainer's own."""
        self.version = version

    def _batches(self, prompts: list[tuple[Request, list[int]]]) -> Iterator[list[tuple[Request, list[int]]]]:
        """Batches of prompts with equal sampling options on the same side of `_boundary`, longest first, as large as
        the token budget allows."""

        def options(item: tuple[Request, list[int]]) -> tuple:
            s = item[0].sampling
            is_long = self._boundary is not None and len(item[1]) > self._boundary
            return (s.temperature, s.top_p, s.top_k, s.min_p, s.stop_token_ids, s.logprobs, is_long)

        def size(item: tuple[Request, list[int]]) -> tuple[int, int]:
            return item[0].sampling.n, len(item[1]) + item[0].sampling.max_tokens

        ordered = sorted(prompts, key=lambda item: (options(item), -item[0].sampling.max_tokens, -len(item[1])))
        for _, group in itertools.groupby(ordered, key=options):
            yield from in_budget(group, self.max_tokens_per_batch, size)

    @torch.inference_mode()
    def _decode(self, batch: list[tuple[Request, list[int]]]) -> Iterator[tuple[Hashable, list[Completion]]]:
        with self._evaluating():
            rows = _last(self._decode_rows(batch))
        start = 0
        for request, _ in batch:
            yield request.id, rows[start : start + request.sampling.n]
            start += request.sampling.n

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)

    def _decode_rows(self, batch: list[tuple[Request, list[int]]]) -> Steps[list[Completion]]:
        """One completion per row; rows are the samples of all requests, side by side."""
        sampling = batch[0][0].sampling
        prompts = [ids for _, ids in batch]
        counts = [r.sampling.n for r, _ in batch]
        owners = [ids for ids, n in zip(prompts, counts, strict=True) for _ in range(n)]
        wanted = [self._limit(r, ids) for r, ids in batch for _ in range(r.sampling.n)]
        noise = list(uniform_streams((r.sampling.seed, i, max(wanted)) for r, _ in batch for i in range(r.sampling.n)))
        limits = [min(n, self._most(ids)) for n, ids in zip(wanted, owners, strict=True)]
        rows = yield from self._continue(prompts, counts, limits, noise, sampling)
        cut = [i for i, row in enumerate(rows) if row.ending == "length" and len(row.tokens) == limits[i] < wanted[i]]
        if cut:  # keys of the tokens so far change with the frequencies
            longer = yield from self._continue(
                [owners[i] + rows[i].tokens for i in cut],
                [1] * len(cut),
                [wanted[i] - limits[i] for i in cut],
                [noise[i][limits[i] :] for i in cut],
                sampling,
            )
            for i, rest in zip(cut, longer, strict=True):
                before = rows[i]
                experts = before.experts + rest.experts
                rows[i] = Row(before.tokens + rest.tokens, before.logprobs + rest.logprobs, rest.ending, experts)
        return self._completions(rows, sampling)

    def _prompt(self, request: Request) -> list[int]:
        return prompt_ids(request, self.tokenizer, self._vocabulary)

    def _limit(self, request: Request, prompt: list[int]) -> int:
        """The completion's limit in tokens: no position beyond the model's context."""
        return min(request.sampling.max_tokens, (context_length(self.model.config) or 2**31) - len(prompt))

    def _most(self, prompt: list[int]) -> int:
        """Tokens that can follow `prompt` until rotary frequencies change: the last is predicted by the `_boundary`
        tokens before it."""
        if self._boundary is None or len(prompt) > self._boundary:
            return 2**31
        return self._boundary + 1 - len(prompt)

    def _continue(
        self,
        prompts: list[list[int]],
        counts: list[int],
        limits: list[int],
        noise: list[np.ndarray],
        sampling: Sampling,
    ) -> Steps[list["Row"]]:
        """`counts` rows for each prompt; row i gets at most `limits[i]` tokens, drawn at `noise[i]`."""
        device = self.model.device
        if self._rule is not None and self._rule.kind == "dynamic":
            forget_lengths(self.model)
        longest = max(limits)
        uniforms = torch.zeros(len(limits), longest, device=device)
        for row, numbers in zip(uniforms, noise, strict=True):
            known = torch.from_numpy(numbers[:longest])
            row[: len(known)] = known
        warpers = logits_warpers(sampling)
        stops = torch.tensor(sampling.stop_token_ids, dtype=torch.long, device=device)
        limit = torch.tensor(limits, device=device)

        # A loss that balances routers has no use here, and is not computed right for a cache.
        balances = getattr(self.model.config.get_text_config(), "output_router_logits", False)
        options: dict[str, Any] = {"use_cache": True, **({"output_router_logits": False} if balances else {})}
        input_ids, mask = left_pad(prompts, min(pad_token_id(self.tokenizer), self._vocabulary - 1))
        input_ids, mask = input_ids.to(device), mask.to(device)
        out = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=1,
            **options,
        )
        expand = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts)).to(device)
        recurrent = hasattr(out, "cache_params")  # Mamba: no keys, and a mask is read for the tokens of a call only
        cache = out.cache_params if recurrent else out.past_key_values
        select_rows(cache, expand)
        logits, experts = out.logits[:, -1].float()[expand], self._experts(len(prompts))[expand]
        mask = mask[expand]
        position = mask.sum(1)

        live = torch.arange(len(limits), device=device)
        tokens = torch.zeros(len(limits), longest, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(limits), longest if sampling.logprobs else 0, device=device)
        predictors = torch.zeros(len(limits), longest if self.chosen_experts else 0, dtype=torch.long, device=device)
        lengths = torch.zeros(len(limits), dtype=torch.long, device=device)
        stopped, failed = torch.zeros(2, len(limits), dtype=torch.bool, device=device)
        done = torch.zeros_like(stopped)
        for step in range(longest):
            if done.float().mean() > 0.25:
                keep = (~done).nonzero().squeeze(1)
                select_rows(cache, keep)
                live, logits, experts = live[keep], logits[keep], experts[keep]
                mask, position, done = mask[keep], position[keep], done[keep]
            if sampling.temperature == 0 and not sampling.logprobs:
                logprob, token = logits.max(-1)
            else:
                token, logprob = sample(logits, uniforms[live, step], warpers, greedy=sampling.temperature == 0)
            failed[live] |= ~done & ~logprob.isfinite()
            done |= failed[live]
            running, sampled = live[~done], token[~done]
            tokens[running, step] = sampled
            if sampling.logprobs:
                logprobs[running, step] = logprob[~done]
            if self.chosen_experts:
                predictors[running, step] = experts[~done]
            lengths[running] = step + 1
            stopped[running] = torch.isin(sampled, stops)
            done = stopped[live] | failed[live] | (step + 1 >= limit[live])
            if self.on_tokens is not None:
                self.on_tokens(len(running))
            yield sampled, stopped[running]
            if done.all():
                break
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            out = self.model(
                input_ids=token[:, None],
                position_ids=position.masked_fill(done, 0)[:, None],  # rows that have ended change no frequencies
                **options,
                **({"cache_params": cache} if recurrent else {"past_key_values": cache, "attention_mask": mask}),
            )
            logits, experts = out.logits[:, -1].float(), self._experts(len(live))
            position = position + 1
        columns = (tokens, logprobs, predictors, lengths, stopped, failed)
        return [
            Row(ids[:n], numbers[:n], "error" if fail else "stop" if stop else "length", experts[:n])
            for ids, numbers, experts, n, stop, fail in zip(*(x.tolist() for x in columns), strict=True)
        ]

    def _experts(self, rows: int) -> Tensor:
        """A number of the experts that the last token of each row went through; 0 for a dense model."""
        if not self.chosen_experts:
            return torch.zeros(rows, dtype=torch.long, device=self.model.device)
        return self.chosen_experts.fingerprints().view(rows, -1)[:, -1]

    def _completions(self, rows: list["Row"], sampling: Sampling) -> list[Completion]:
        warn_of_failures(sum(row.ending == "error" for row in rows))
        texts = self.tokenizer.batch_decode(
            [row.tokens[: len(row.tokens) - (row.ending == "stop")] for row in rows], skip_special_tokens=True
        )
        return [
            Completion(
                text=text,
                token_ids=row.tokens,
                logprobs=row.logprobs if sampling.logprobs else None,
                finish_reason=row.ending,
                weights_version=self.version,
                experts=row.experts if self.chosen_experts else None,
            )
            for text, row in zip(texts, rows, strict=True)
        ]


class Row(NamedTuple):
    """The tokens of one completion, its logprobs if requested, and its experts if the model has some."""

    tokens: list[int]
    logprobs: list[float]
    ending: Literal["stop", "length", "error"]
    experts: list[int]


def _last(steps: Steps[T]) -> T:
    """Runs all steps and returns their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def select_rows(cache: Any, rows: Tensor) -> None:
    """Keeps `rows`, in this order, of keys and values and of the states of recurrent and convolutional layers, which
    transformers' `batch_select_indices` ignores."""
    for layer in cache.layers:
        if hasattr(layer, "batch_select_indices"):
            layer.batch_select_indices(rows)
        for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
            for index, state in (states or {}).items():
                if state is not None:
                    states[index] = state.index_select(0, rows)  # type: ignore[index]
    linear: list[Any] = getattr(cache, "linear_cache", [])  # MiniMax
    linear[:] = [state.index_select(0, rows) if isinstance(state, Tensor) else state for state in linear]


class ReplicaEngine(TransformersEngine):
    """Decodes with a copy of the policy that receives the policy's weights at every update, for policies that are
    sharded over processes."""

    takes_parameter_names = True
    """Updates use the names of the model's parameters, not those of its checkpoint as for other engines."""

    @torch.no_grad()
    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copies every tensor into the model's parameter of that name."""
        parameters = dict(self.model.named_parameters())
        for name, tensor in named_tensors:
            parameters[name].copy_(tensor)
        self.version = version


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """`(ids, mask)`, each `(P, longest)`: prompts flush right, mask 1 on real tokens."""
    width = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def logits_warpers(sampling: Sampling) -> LogitsProcessorList:
    """Temperature, top-k, top-p and min-p, in the order of `generate`; empty for greedy decoding."""
    warpers = LogitsProcessorList()
    if sampling.temperature == 0:
        return warpers
    if sampling.temperature != 1:
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


def sample(logits: Tensor, uniform: Tensor, warpers: LogitsProcessorList, greedy: bool) -> tuple[Tensor, Tensor]:
    """Draws a token per row of `logits (B, V)` by inverting the distribution at `uniform (B,)`.

    Returns `(token (B,), logprob (B,))`, the logprob under the distribution that was sampled from; it is NaN if the
    logits are not finite.
    """
    no_ids: Any = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
    log_p = warpers(no_ids, logits).log_softmax(-1)  # type: ignore[arg-type]
    token = logits.argmax(-1) if greedy else invert(log_p, uniform)
    return token, log_p.gather(-1, token[:, None]).squeeze(1)
