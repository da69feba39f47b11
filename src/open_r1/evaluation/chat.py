"""`open-r1 chat`: a conversation with a model, with its reasoning folded.

    open-r1 chat --model runs/grpo
    open-r1 chat --model runs/grpo --web
    open-r1 chat --model NAME --base-url http://localhost:8000/v1 --save conversations.jsonl

In the terminal, /help lists the commands: change temperature and limit, try again, save a row for SFT.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from open_r1.engine.options import EngineOptions
from open_r1.errors import UserError
from open_r1.evaluation.ask import AnswerOptions, open_one, stream_answer
from open_r1.evaluation.conversation import Answer, Conversation, Say, follow, save_row
from open_r1.options import parse_options
from open_r1.options.annotations import Range
from open_r1.progress_bars import hide_library_bars


@dataclass(kw_only=True)
class ChatOptions(AnswerOptions):
    """Conversation."""

    web: bool = False
    """Open the chat in the browser, on the loopback address."""
    port: Annotated[int | None, Range(at_least=0, at_most=65535)] = None
    """Port of --web. Default: 8421, or another if that is taken."""
    save: Path = Path("conversations.jsonl")
    """File for saved conversations, one row each, for `open-r1 sft --dataset_name`."""


def main(argv: list[str] | None = None) -> None:
    """Runs the conversation until the end of the input. Raises UserError."""
    args, options = parse_options(argv, ChatOptions, EngineOptions, prog="open-r1 chat", description=__doc__)

    hide_library_bars()
    engine = open_one(options)

    def say(messages: list[Any]) -> Generator[tuple[str, str]]:
        settings: dict[str, Any] = {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}
        args.seed += 1
        return stream_answer(engine, messages, max_new_tokens=args.max_new_tokens, **settings)

    if args.web:
        from open_r1.evaluation.chat_page import serve_chat

        serve_chat(options.model, args, say)
    else:
        Terminal(args, say, Console(), input).talk()


COMMANDS = {
    "/new": "start a new conversation",
    "/again": "sample another answer to the last question",
    "/undo": "remove the last question and its answer",
    "/think": "show the reasoning of the last answer",
    "/temperature": "X: set the sampling temperature",
    "/limit": "N: set the maximum number of tokens per answer",
    "/system": "TEXT: start a new conversation with this system prompt",
    "/save": "save the conversation as a row for SFT",
    "/quit": "exit (or Ctrl-D)",
}


class Terminal:
    """A conversation in a terminal. `read` reads a line and raises EOFError at the end."""

    def __init__(self, args: ChatOptions, say: Say, console: Console, read: Callable[[str], str]) -> None:
        self.args, self.say, self.console, self.read = args, say, console, read
        self.conversation = Conversation(args.system_prompt)

    def talk(self) -> None:
        """Handles turns and commands until the end of the input or /quit."""
        self._print("Ask a question. Ctrl-C stops an answer, Ctrl-D exits, /help lists the commands.", "dim")
        while True:
            try:
                line = self._line()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            try:
                if line == "/quit":
                    return
                if line.startswith("/"):
                    self._command(*line.partition(" ")[::2])
                elif line:
                    self._answer(line)
            except UserError as error:
                self._print(f"{error}", "red")

    def _line(self) -> str:
        """Reads a question. A line that ends in a backslash continues in the next line."""
        text = self.read("\n> ")
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self.read("  ")
        return text.strip()

    def _answer(self, question: str) -> None:
        answer = Answer()
        pieces = follow(self.say(self.conversation.messages(question)), answer)
        status = self.console.status("Thinking", spinner="dots") if self.console.is_terminal else None
        if status:
            status.start()
        folded = True
        try:
            for kind, text in pieces:
                if kind == "reasoning":
                    if status:
                        status.update(f"Thinking, {answer.thought:.0f} s")
                    continue
                if folded and not text.strip():
                    continue
                if folded:
                    self._unfold(answer, status)
                    text, folded = text.lstrip(), False
                self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            pass  # the answer is what was generated so far
        finally:
            pieces.close()
            if status:
                status.stop()
        if folded:
            self._unfold(answer, status)
            self._print("There is no answer.", "dim")
        self.console.print()
        if answer.whole:
            self.conversation.turns.append((question, answer))

    def _unfold(self, answer: Answer, status: Any) -> None:
        if status:
            status.stop()
        if answer.reasoning.strip():
            self._print(f"Thought for {answer.thought:.1f} s (/think shows it)", "dim")

    def _command(self, name: str, words: str) -> None:
        turns, words = self.conversation.turns, words.strip()
        count = len(turns)
        if name in ("/again", "/undo", "/think", "/save") and not turns:
            raise UserError(f"{name}: there is no answer yet.")
        if name == "/new":
            self.conversation = Conversation(self.conversation.system_prompt)
        elif name == "/again":
            last = turns.pop()
            try:
                self._answer(last[0])
            finally:
                if len(turns) < count:  # there is no other answer
                    turns.append(last)
        elif name == "/undo":
            turns.pop()
        elif name == "/think":
            self._print(turns[-1][1].reasoning.strip() or "It wrote none.", "dim")
        elif name == "/temperature":
            self.args.temperature = _number(words, float, name)
        elif name == "/limit":
            self.args.max_new_tokens = max(1, _number(words, int, name))
        elif name == "/system":
            self.conversation = Conversation(words or None)
        elif name == "/save":
            save_row(self.args.save, self.conversation.row())
            self._print(f"Saved as a row with {count} turn{'s' * (count > 1)} in {self.args.save}.", "dim")
        else:
            self._print("\n".join(f"{command:<13} {meaning}" for command, meaning in COMMANDS.items()), "dim")

    def _print(self, text: str, style: str) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _number(words: str, kind: type, name: str) -> Any:
    try:
        value = kind(words)
    except ValueError as error:
        raise UserError(f"{name} is {words!r}: expected a number.") from error
    if not 0 <= value < float("inf"):
        raise UserError(f"{name} is {words}: it must be at least 0.")
    return value
