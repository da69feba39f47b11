"""`open-r1 ask`: asks a model one question and streams the answer; the reasoning is shown separately.

    open-r1 ask --model runs/grpo "How many primes are there below 50?"
    open-r1 ask --model NAME --base-url http://localhost:8000/v1 "..."

The length of the answer is limited only by the model's context, unless you set --max-new-tokens.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from open_r1.engine.options import EngineOptions
from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.options.annotations import Positional, Range
from open_r1.progress_bars import hide_library_bars

if TYPE_CHECKING:
    from open_r1.engine.opening import OpenEngine
    from open_r1.engine.protocol import Message, Request

THINKING = {"<think>": "reasoning", "</think>": "content"}
TAGS = {"reasoning": THINKING, "content": {**THINKING, "<answer>": "content", "</answer>": "content"}}
"""The tags that matter inside and outside of reasoning, and the state after each."""


@dataclass(kw_only=True)
class AnswerOptions:
    """Sampling."""

    system_prompt: str | None = None
    """System prompt of the conversation."""
    temperature: Annotated[float, Range(at_least=0)] = 0.6
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Range(above=0, at_most=1)] = 0.95
    """Sample from the most likely tokens, up to this total probability."""
    max_new_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Maximum length of an answer, in tokens. Default: the rest of the context."""
    seed: int = 0
    """Random seed of the first answer; each later answer uses the next one."""


@dataclass(kw_only=True)
class AskOptions(AnswerOptions):
    """Question."""

    question: Annotated[str, Positional("QUESTION")]
    """The question, in quotes."""

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise UserError("question is empty: give a question in quotes.")


def main(argv: list[str] | None = None) -> None:
    """Asks the question and prints the answer. Raises UserError."""
    args, options = parse_options(argv, AskOptions, EngineOptions, prog="open-r1 ask", description=__doc__)

    messages: list[Message] = [{"role": "user", "content": args.question}]
    if args.system_prompt:
        messages.insert(0, {"role": "system", "content": args.system_prompt})
    hide_library_bars()
    parts = stream_answer(
        open_one(options),
        messages,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
    )
    with closing(parts):
        show(parts, Console())


def open_one(options: EngineOptions) -> "OpenEngine":
    """The engine of `options` for a single reader: on one GPU, with few slots, and by default the one that starts
    fastest. Raises `UserError`."""
    from open_r1.engine.opening import open_engine

    if options.engine == "auto" and options.base_url is None:
        options = replace(options, engine="transformers")
    engines, slots = options.data_parallel_size or 1, min(options.max_num_seqs or 8, 8)
    return open_engine(replace(options, data_parallel_size=engines, max_num_seqs=slots))


def stream_answer(
    engine: "OpenEngine",
    messages: "list[Message]",
    *,
    temperature: float = 0.6,
    top_p: float = 0.95,
    seed: int = 0,
    max_new_tokens: int | None = None,
) -> Generator[tuple[str, str]]:
    """Streams one answer (with vLLM, when it is finished): `("reasoning" | "content", text)`. Raises `UserError`."""
    from open_r1.engine.openai_engine import OpenAIEngine
    from open_r1.engine.protocol import Request, Sampling

    inner = engine.engine
    if isinstance(inner, OpenAIEngine):
        pieces = inner.stream_text(
            engine.render(messages), temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_new_tokens
        )
        return split_reasoning(pieces)
    prompt: Any = engine.render(messages)
    room = (engine.context or 2**31) - engine.prompt_tokens(prompt)
    if room < 1:
        raise UserError(f"the question has {engine.prompt_tokens(prompt):,} tokens, more than the model's context.")
    limit = min(room, max_new_tokens or (32768 if engine.context is None else room))
    engine.reserve(len(prompt) + limit)
    sampling = Sampling(
        temperature=temperature,
        top_p=top_p,
        max_tokens=limit,
        stop_token_ids=engine.stop_token_ids,
        seed=seed,
        logprobs=False,
    )
    text = _sampled_text(inner, Request("ask", prompt, sampling))
    opened = str(inner.tokenizer.decode(prompt[-8:])).rstrip().endswith("<think>")  # type: ignore[attr-defined]
    return split_reasoning((("reasoning" if opened else "content", piece) for piece in text), opened)


def _sampled_text(inner: Any, request: "Request") -> Iterator[str]:
    from transformers import TextStreamer

    if not hasattr(inner, "stream_tokens"):
        yield inner.generate([request])[0][0].text
        return
    import torch

    ready: list[str] = []

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            ready.append(text)

    streamer = Streamer(inner.tokenizer, skip_special_tokens=True)
    with closing(inner.stream_tokens(request)) as tokens:
        for some in tokens:
            for token in some:
                streamer.put(torch.tensor([token]))
            yield "".join(ready)
            ready.clear()
    streamer.end()
    yield "".join(ready)


def split_reasoning(pieces: Iterable[tuple[str, str]], opened: bool = False) -> Generator[tuple[str, str]]:
    """Labels streamed pieces of text as "reasoning" or "content". The tags around them, and around the answer, are
    labeled "tag", so that all pieces together are the text.

    Pieces that are already labeled as reasoning stay so. `opened`: the prompt has opened the reasoning.
    """
    kind, held = "reasoning" if opened else "content", ""
    for given, piece in pieces:
        if given == "reasoning" and not opened:
            yield "reasoning", piece
            continue
        held += piece
        while found := min((t for t in TAGS[kind] if t in held), key=held.find, default=None):
            before, _, held = held.partition(found)
            if before:
                yield kind, before
            yield "tag", found
            kind = TAGS[kind][found]
        keep = max((n for tag in TAGS[kind] for n in range(1, len(tag)) if held.endswith(tag[:n])), default=0)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            yield kind, ready
    if held:
        yield kind, held


def show(parts: Iterable[tuple[str, str]], console: Console) -> None:
    """Prints reasoning dimmed, under a heading, and then the answer."""
    last, blank = None, ""
    for kind, text in parts:
        if kind == "tag":
            continue
        text = blank + text
        blank = text[len(text.rstrip()) :]  # printed once something follows
        if not text.strip():
            continue
        if kind != last:
            if last is not None or kind == "reasoning":
                heading = "Reasoning" if kind == "reasoning" else "\n\nAnswer"
                console.print(heading, style="bold", highlight=False)
            last, text = kind, text.lstrip("\n")
        style = "dim" if kind == "reasoning" else None
        console.print(text.rstrip(), end="", style=style, markup=False, highlight=False, soft_wrap=True)
    console.print()
