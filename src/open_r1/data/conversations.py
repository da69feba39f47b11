"""Turns rows into conversations and conversations into prompts, for training, generation, evaluation and curation.

Everything that a row carries for the model is in the rendered text; what is not is an error or a counted note.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from open_r1.data.chat import encode, end_of_turn, render
from open_r1.data.messages import REASONING_FIELDS, check_messages, check_tools, split_reasoning, without_nulls
from open_r1.data.paths import ContextColumns, value_at
from open_r1.data.rendered import check_rendered
from open_r1.data.stored import with_text_arguments
from open_r1.errors import UserError, warn_user

INSTRUCTION, INPUT = "instruction", "input"
"""Alpaca's columns: the input is appended to the instruction."""


@dataclass(frozen=True)
class Conversation:
    """Messages as `check_messages` returns them, tools as `check_tools` does, and variables of the chat template."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_conversation(
    messages: list[dict[str, Any]],
    row: Mapping[str, Any],
    columns: ContextColumns,
    system_prompt: str | None,
    where: str,
) -> Conversation:
    """`messages` with what accompanies them in `row`. A system prompt in the row overrides `system_prompt`.

    Raises `UserError` with `where` for two different system prompts, and for a system prompt, tools or settings of the
    wrong type.
    """
    own = value_at(row, columns.system) if columns.system else None
    if own is not None and not isinstance(own, str):
        raise UserError(f"{where}, column {columns.system}: expected a system prompt, found {str(own)[:40]!r}.")
    if own and own.strip():
        if messages[0]["role"] == "system" and messages[0]["content"].strip() != own.strip():
            raise UserError(
                f"{where}: column {columns.system} and the first message have different system prompts: remove one of "
                "them."
            )
        system_prompt = own
    tools = check_tools(value_at(row, columns.tools), f"{where}, column {columns.tools}") if columns.tools else None
    settings = value_at(row, columns.settings) if columns.settings else None
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(f"{where}, column {columns.settings}: expected a mapping, found {str(settings)[:40]!r}.")
    return Conversation(with_system_prompt(messages, system_prompt), tools, without_nulls(dict(settings or {})))


def with_system_prompt(messages: Sequence[Any], system_prompt: str | None) -> list[Any]:
    """`messages` with `system_prompt` in front, unless they begin with a system message."""
    if not system_prompt or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system_prompt}, *messages]


def prompt_messages(value: Any, where: str, more: Any = None) -> list[dict[str, Any]]:
    """The messages of a prompt, given as text or as a conversation; `more` is appended to a text (Alpaca's input).

    Raises `UserError` with `where` if the prompt is empty or ends with an answer.
    """
    empty = UserError(f"{where}: the prompt is empty: fill it in, or remove the row.")
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise empty
    if isinstance(value, str | int | float) and not is_conversation(value):
        return [{"role": "user", "content": with_input(str(value), more)}]
    messages = check_messages(value, where)
    if messages[-1]["role"] == "assistant":
        raise UserError(f"{where}: the prompt ends with an assistant message: remove it from the prompt.")
    if not messages[-1]["content"].strip():
        raise empty
    return messages


def with_input(text: str, more: Any) -> str:
    """An instruction with its input, if there is one."""
    return f"{text}\n\n{more}" if isinstance(more, str) and more.strip() else text


def is_conversation(value: Any) -> bool:
    """Whether `value` is a list of messages, or its JSON text."""
    if isinstance(value, str):
        if not value.lstrip().startswith("[") or '"' not in value:
            return False
        try:
            value = json.loads(value)
        except ValueError:
            return False
    return isinstance(value, list) and value != [] and isinstance(value[0], Mapping)


@dataclass(frozen=True)
class Template:
    """What a chat template does: the field in which it expects reasoning (None: in the content), whether it expects
    the arguments of tool calls as text, and whether it ends an assistant turn with a special token."""

    reasoning: str | None
    text_arguments: bool
    ends: bool

    def placed(self, messages: Sequence[Any]) -> list[Any]:
        """`messages` in the form that the template expects."""
        return [self._calls(message) for message in place_reasoning(messages, self.reasoning)]

    def _calls(self, message: dict[str, Any]) -> dict[str, Any]:
        if not self.text_arguments or "tool_calls" not in message:
            return message
        return {**message, "tool_calls": [with_text_arguments(call) for call in message["tool_calls"]]}


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """What the chat template of `tokenizer` does, found out by rendering sample messages."""
    reasons = (name for name in REASONING_FIELDS if "openr1reason" in _trial(tokenizer, {name: "openr1reason"}))
    function = {"name": "openr1call", "arguments": {"x": 1}}
    call = {"id": "openr1000", "type": "function", "function": function}
    as_mapping = _trial(tokenizer, {"content": "", "tool_calls": [call]})
    as_text = "" if as_mapping else _trial(tokenizer, {"content": "", "tool_calls": [with_text_arguments(call)]})
    return Template(next(reasons, None), "openr1call" in as_text, end_of_turn(tokenizer) is not None)


def _trial(tokenizer: PreTrainedTokenizerBase, answer: dict[str, Any]) -> str:
    user = {"role": "user", "content": "6 * 7"}
    try:
        return render(tokenizer, [user, {"role": "assistant", "content": "openr1answer", **answer}])
    except UserError:
        return ""


def place_reasoning(messages: Sequence[Any], field: str | None) -> list[Any]:
    """`messages` with reasoning in `field`, or between `<think>` marks in the content if `field` is None."""
    placed = []
    for message in messages:
        if message["role"] != "assistant":
            placed.append(message)
            continue
        own = {name: value for name, value in message.items() if name != "reasoning_content"}
        reasoning, parts = message.get("reasoning_content"), split_reasoning(message["content"])
        if reasoning is None and parts is not None and field is not None:
            reasoning, own["content"] = parts[1], parts[3]
        if reasoning and field is None:
            own["content"] = f"<think>\n{reasoning.strip()}\n</think>\n\n{own['content']}"
        elif reasoning:
            own[str(field)] = reasoning
        placed.append(own)
    return placed


class ConversationRenderer:
    """Renders conversations by the chat template of `tokenizer`, as prompts by default; `lost` counts notes on what the
    template leaves out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.template = tokenizer, template_of(tokenizer)
        self.lost: Counter[str] = Counter()

    def text(
        self, conversation: Conversation, where: str, *, add_generation_prompt: bool = True
    ) -> tuple[str, list[str]]:
        """The conversation as text, and notes on what is not in it. Raises `UserError`."""
        placed = replace(conversation, messages=self.template.placed(conversation.messages))
        text = render(
            self.tokenizer,
            placed.messages,
            tools=placed.tools,
            settings=placed.settings,
            add_generation_prompt=add_generation_prompt,
            where=where,
        )
        return text, check_rendered(placed.messages, text, placed.tools, where)

    def __call__(self, prompt: Conversation | Sequence[Any], where: str = "the prompt") -> list[int]:
        """The token ids of a prompt, given as a conversation or its messages."""
        conversation = prompt if isinstance(prompt, Conversation) else Conversation(list(prompt))
        text, notes = self.text(conversation, where)
        self.lost.update(notes)
        return encode(self.tokenizer, text)


def warn_of_losses(source: str, notes: Mapping[str, int], total: int, what: str = "rows") -> None:
    """Logs one warning per note, with the number of rows (of `total`) that it applies to."""
    for note, count in notes.items():
        warn_user("%s: %d of %d %s %s.", source, count, total, what, note)


def warn_of_unused(source: str, columns: Iterable[str]) -> None:
    """Logs one warning with the columns that do not enter the text."""
    if unused := list(columns):
        warn_user("%s: these columns are not used: %s.", source, ", ".join(unused))
