"""Checks that the rendered text has everything that a conversation carries: what is missing is an error or a note."""

import json
from typing import Any

from open_r1.data.messages import KNOWN_FIELDS, REASONING_FIELDS, texts_of
from open_r1.errors import UserError

DOUBLED = (
    "have reasoning after an empty <think></think> that the chat template adds: chat_template_kwargs may turn on its "
    "reasoning, or pass a chat_template"
)


def check_rendered(
    messages: list[dict[str, Any]], text: str, tools: list[dict[str, Any]] | None, where: str
) -> list[str]:
    """Notes on what `text` leaves out, each worded to follow "3 of 4 rows".

    Raises `UserError` if content, tool calls or the reasoning of the last answer are missing. Texts are searched for in
    order, so that a question that repeats an answer does not hide a missing answer.
    """
    notes: dict[str, None] = {}
    position = 0
    for number, message in enumerate(messages, start=1):
        reasoning, content = (text.strip() for text in texts_of(message))
        if reasoning:
            at = text.find(reasoning, position)
            if at >= 0:
                position = at + len(reasoning)
                if text[:at].rstrip().removesuffix("<think>").rstrip().endswith("</think>"):
                    notes[DOUBLED] = None
            elif number == len(messages):
                raise UserError(
                    f"{where}: the chat template drops the reasoning before </think>, so the model would not learn it: "
                    "pass a chat_template that keeps it."
                )
            else:
                notes["have reasoning in earlier turns that the chat template drops"] = None
        if message["role"] == "system":
            if content not in text:
                raise UserError(f"{where}: the chat template drops the system message: remove it from the row.")
            continue
        end = _end_of(content, text, position)
        calls = [call["function"]["name"] for call in message.get("tool_calls", [])]
        if end is None or any(name not in text[position:] for name in calls):
            what = f"content of the {message['role']}" if end is None else "tool calls"
            raise UserError(
                f"{where}: the chat template drops the {what} in message {number}: pass a chat_template that keeps "
                "them, or remove the row."
            )
        position = end
        for field in message.keys() - KNOWN_FIELDS - {*REASONING_FIELDS}:
            notes[f"have messages with {field!r}, which is not in the text"] = None
    if any(str(tool.get("function", tool).get("name")) not in text for tool in tools or []):
        notes["have tools that the chat template drops"] = None
    return list(notes)


def _end_of(content: str, text: str, start: int) -> int | None:
    """The end of the first occurrence of `content`, as it is or as JSON, in `text` from `start` on; None if missing."""
    forms = [content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1]]
    found = [(at, form) for form in forms if (at := text.find(form, start)) >= 0]
    return min(found)[0] + len(min(found)[1]) if found else None
