"""Loads a model to generate text from Python: `load_engine("Qwen/Qwen2.5-1.5B-Instruct").generate([...])`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from open_r1.data.conversations import prompt_messages, read_conversation, warn_of_losses
from open_r1.data.paths import ContextColumns
from open_r1.engine.opening import OpenEngine, open_engine
from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Completion, Request, Sampling, check_sampling, request_seed
from open_r1.errors import UserError
from open_r1.options.keywords import from_keywords


def load_engine(model: str | Path, engine: str = "auto", **options: Any) -> "LoadedEngine":
    """Loads a model into an engine that generates text.

    Args:
        model: Hub id or local folder. With `base_url`, the name under which the server serves the model.
        engine: `native`, `transformers`, `vllm` or `openai`. `auto` selects the fastest one that is available.
        **options: The other fields of `open_r1.engine.options.EngineOptions`, such as `dtype="bfloat16"` or
            `base_url="http://localhost:8000/v1"`.

    Returns:
        The engine, also usable in a `with` statement, which closes it.

    Raises:
        UserError: The model cannot be loaded, or an option is wrong.
    """
    if not isinstance(model, str | Path):
        raise UserError(f"model is a {type(model).__name__}: expected a hub id or a local folder.")
    return LoadedEngine(open_engine(from_keywords(EngineOptions, {"model": str(model), "engine": engine, **options})))


class LoadedEngine:
    """A loaded model, as `load_engine` returns it. In a `with` statement it is closed at the end of the block."""

    def __init__(self, opened: OpenEngine) -> None:
        self._opened = opened

    def generate(
        self,
        prompts: Sequence[str | Sequence[dict[str, Any]]],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 512,
        seed: int = 0,
        system_prompt: str | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[list[Completion]]:
        """Samples completions for each prompt.

        The same prompts with the same `seed` get the same completions from the same engine.

        Args:
            prompts: Each is text, which becomes a user message, or a conversation: a list of messages in any layout
                that SFT reads.
            n: Completions per prompt.
            temperature: 0 is greedy: it takes the most likely token.
            top_p: Sample from the smallest set of tokens whose probability reaches `top_p`.
            max_tokens: Longest completion in tokens. It is shorter if the model's context leaves less room.
            seed: Seed of the random numbers.
            system_prompt: Added to each conversation that has no system message.
            tools: JSON schemas of tools that are offered in every prompt.

        Returns:
            `n` completions for each prompt, in the order of the prompts.

        Raises:
            UserError: A prompt or an option is wrong, a prompt fills the model's context, or the chat template drops
                part of a conversation that it must not drop. Other dropped parts are counted in a warning.
        """
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], dict)):
            raise UserError("prompts is a single prompt: expected a list of prompts, so put it in brackets.")
        if n < 1 or max_tokens < 1:
            raise UserError(f"n is {n} and max_tokens {max_tokens}: both must be at least 1.")
        check_sampling(temperature, top_p)
        engine = self._opened
        row = {"tools": list(tools) if tools else None}
        rendered, before = [], Counter(engine.lost)
        for i, prompt in enumerate(prompts):
            where = f"prompts[{i}]"
            messages = prompt_messages(list(prompt) if isinstance(prompt, tuple) else prompt, where)
            conversation = read_conversation(messages, row, ContextColumns(tools="tools"), system_prompt, where)
            rendered.append(engine.render(conversation, where))
        warn_of_losses("prompts", Counter(engine.lost) - before, len(prompts), "conversations")
        rooms = [engine.room(prompt, max_tokens) for prompt in rendered]
        if full := [i for i, room in enumerate(rooms) if room < 1]:
            raise UserError(f"prompts[{full[0]}] fills the model's context of {engine.context} tokens: shorten it.")
        if not rendered:
            return []
        engine.reserve(max(engine.prompt_tokens(p) + room for p, room in zip(rendered, rooms, strict=True)))
        requests = [
            Request(
                id=i,
                prompt=prompt,
                sampling=Sampling(
                    n=n,
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=room,
                    stop_token_ids=engine.stop_token_ids,
                    seed=request_seed(seed, i, 0),
                    logprobs=False,
                ),
            )
            for i, (prompt, room) in enumerate(zip(rendered, rooms, strict=True))
        ]
        return engine.engine.generate(requests)

    def close(self) -> None:
        """Frees the engine. With vLLM, this ends its processes."""
        self._opened.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
