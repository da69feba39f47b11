"""A conversation with a model: the messages it receives, and the row saved for SFT."""

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_r1.files import explain_output

Say = Callable[[list[Any]], Generator[tuple[str, str]]]
"""Messages to the pieces of an answer, as `stream_answer` gives them."""


@dataclass
class Answer:
    """The pieces of an answer so far, and the seconds that the reasoning and the whole answer took."""

    reasoning: str = ""
    content: str = ""
    whole: str = ""
    thought: float = 0.0
    seconds: float = 0.0

    def text(self) -> str:
        """The answer as an assistant message, with the reasoning in `<think>` tags, even if the chat template put the
        first tag into the prompt or a server removed the tags."""
        if not self.reasoning or "<think>" in self.whole:
            return self.whole
        if "</think>" in self.whole:
            return f"<think>\n{self.whole.lstrip()}"
        return f"<think>\n{self.reasoning.strip()}\n</think>\n\n{self.content.strip()}"


@dataclass
class Conversation:
    """Questions with their answers. Later turns get the answers without their reasoning, as in R1's template."""

    system_prompt: str | None = None
    turns: list[tuple[str, Answer]] = field(default_factory=list)

    def messages(self, question: str) -> list[dict[str, str]]:
        """The prompt for `question` after the turns before it."""
        return [*self._messages(lambda answer: answer.content.strip()), {"role": "user", "content": question}]

    def row(self) -> dict[str, Any]:
        """The conversation with all reasoning, as `open-r1 sft` reads it."""
        return {"messages": self._messages(Answer.text)}

    def _messages(self, of: Callable[[Answer], str]) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        for question, answer in self.turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": of(answer)}]
        return messages


def follow(pieces: Generator[tuple[str, str]], answer: Answer) -> Generator[tuple[str, str]]:
    """Yields the pieces without tags, and fills `answer` with them. They are not lost if the reader disconnects."""
    began = time.monotonic()
    try:
        for kind, text in pieces:
            answer.whole += text
            answer.seconds = time.monotonic() - began
            if kind == "reasoning":
                answer.reasoning += text
                answer.thought = answer.seconds
            elif kind == "content":
                answer.content += text
            if kind != "tag":
                yield kind, text
    finally:
        pieces.close()


def save_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a row to a file of JSON lines. Raises UserError."""
    with explain_output(path, "--save"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
