"""Brings conversations, however a dataset writes them, into OpenAI's form: role, content, reasoning and tool calls."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from open_r1.errors import UserError, did_you_mean

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "developer": "system",
}
"""Aliases of the roles system, user, assistant and tool. (`function_call` also stands for an assistant message.)"""
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
KNOWN_FIELDS = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"}
_THINK = re.compile(r"(\s*<think>\s*|(?!.*<think>.*</think>))(.*?)(\s*</think>\s*)(.*)", re.DOTALL)


def check_messages(messages: Any, where: str) -> list[dict[str, Any]]:
    """`messages` with `role` and `content` (text) each, and `reasoning_content` and `tool_calls` where present.

    Accepts a list or the JSON text of one, ShareGPT's `from` and `value`, contents split into text parts, and any of
    `REASONING_FIELDS`. Drops null fields and keeps unknown ones. Raises `UserError` for anything else; `where` names
    the place in its message.
    """
    if isinstance(messages, str) and messages.lstrip()[:1] == "[":
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise UserError(f"{where}: expected a list of messages or its JSON text ({error}).") from error
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: expected a list of messages, found {str(messages)[:40]!r}.")
    return [_checked(message, f"{where}, message {i}", str(message)[:60]) for i, message in enumerate(messages, 1)]


def split_reasoning(content: str) -> tuple[str, str, str, str] | None:
    """Splits `content` into `<think>` (or ""), the reasoning, `</think>`, and the answer, with the white space around
    the marks. None if there is no `</think>`, or if text precedes `<think>`."""
    match = _THINK.fullmatch(content)
    return (match[1], match[2], match[3], match[4]) if match else None


def texts_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """The reasoning of a message ("" if it has none) and its answer."""
    parts = split_reasoning(message["content"]) if message["role"] == "assistant" else None
    if parts is not None:
        return parts[1], parts[3]
    return next((message[name] for name in REASONING_FIELDS if message.get(name)), ""), message["content"]


def check_tools(tools: Any, where: str) -> list[dict[str, Any]] | None:
    """The tools as a list of JSON schemas, from a list or its JSON text; None if there are none.

    Raises `UserError` for invalid JSON and for a tool without a name."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except ValueError as error:
            raise UserError(f"{where}: this is not valid JSON ({error}).") from error
    if not tools:
        return None
    if not isinstance(tools, list):
        raise UserError(f"{where}: expected a list of tools, found {str(tools)[:40]!r}.")
    try:
        schemas = [without_nulls(json.loads(tool) if isinstance(tool, str) else tool) for tool in tools]
    except ValueError as error:
        raise UserError(f"{where}: this is not valid JSON ({error}).") from error
    for tool in schemas:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UserError(f"{where}: expected tools as JSON schemas with a name, found {str(tool)[:40]!r}.")
    return schemas


def _checked(message: Any, where: str, shown: str) -> dict[str, Any]:
    fields = {k: v for k, v in message.items() if v is not None} if isinstance(message, dict) else {}
    if "from" in fields and "value" in fields:
        fields["role"], fields["content"] = fields.pop("from"), fields.pop("value")
    if fields.get("role") == "function_call":
        fields |= {"role": "assistant", "tool_calls": [fields.get("content")], "content": ""}
    elif isinstance(fields.get("role"), str):
        fields["role"] = _role(fields["role"], where)
    if isinstance(fields.get("tool_calls"), list) and fields["tool_calls"]:
        fields["tool_calls"] = [_call(call, where) for call in fields["tool_calls"]]
    else:
        fields.pop("tool_calls", None)
    reasoning = _take_reasoning(fields, where)
    if isinstance(fields.get("content"), list):
        fields["content"] = _joined(fields["content"], where)
    if "content" not in fields and (reasoning or "tool_calls" in fields):
        fields["content"] = ""
    if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content"), str):
        raise UserError(f"{where}: expected messages with role and content, found {shown!r}.")
    repeated = split_reasoning(fields["content"]) is not None and reasoning.strip() in fields["content"]
    if reasoning and not repeated:
        fields["reasoning_content"] = reasoning
    return fields


def _role(name: str, where: str) -> str:
    role = ROLES.get(name, name)
    if role not in ROLES.values():
        known = sorted({*ROLES, *ROLES.values(), "function_call"})
        hint = did_you_mean(name, known, otherwise=f"There are: {', '.join(known)}.")
        raise UserError(f"{where}: unknown role {name!r}.{hint}")
    return role


def _take_reasoning(fields: dict[str, Any], where: str) -> str:
    """Removes the fields with reasoning, and returns their text; "" if there is none."""
    texts = {fields.pop(name) for name in REASONING_FIELDS if isinstance(fields.get(name), str)}
    texts = {text for text in texts if text.strip()}
    if len(texts) > 1:
        raise UserError(f"{where}: {' and '.join(REASONING_FIELDS)} have different texts: remove one of them.")
    return texts.pop() if texts else ""


def _joined(parts: list[Any], where: str) -> str:
    texts = [part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None for part in parts]
    for part, text in zip(parts, texts, strict=True):
        if not isinstance(text, str):
            kind = part.get("type", "unknown") if isinstance(part, dict) else type(part).__name__
            raise UserError(f"{where}: a content part is {kind!r}, but only text is supported: remove the row.")
    return "".join(text for text in texts if text)


def _call(call: Any, where: str) -> dict[str, Any]:
    """A tool call in the form that chat templates expect, with its arguments parsed if they are JSON text."""
    with suppress(ValueError):
        call = json.loads(call) if isinstance(call, str) else call
    function = call.get("function", call) if isinstance(call, dict) else {}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}: expected a tool call with name and arguments, found {str(call)[:60]!r}.")
    arguments = function.get("arguments", {})
    with suppress(ValueError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    kept = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    function = {"name": function["name"], "arguments": without_nulls(arguments)}
    return {**kept, "type": "function", "function": function}


def without_nulls(value: Any) -> Any:
    """`value` without null fields: Arrow gives every row the keys of all rows, null where a row had none."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
