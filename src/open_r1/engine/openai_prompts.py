"""Prompts for OpenAI-compatible servers, which render the chat template themselves."""

import json
from collections.abc import Mapping
from typing import Any

from open_r1.data.conversations import Conversation
from open_r1.data.stored import with_text_arguments


def prompt_bound(prompt: Any) -> int:
    """An upper bound on the tokens of a prompt, rendered by any chat template: a token has at least a byte of text."""
    messages = prompt["messages"] if isinstance(prompt, Mapping) else prompt
    tools = len(json.dumps(prompt.get("tools", []))) if isinstance(prompt, Mapping) else 0
    extra = sum(len(json.dumps(message)) for message in messages if set(message) - {"role", "content"})
    return 64 + 2 * (tools + extra) + sum(len(message["content"].encode()) + 32 for message in messages)


class ServedPrompts:
    """Turns conversations into fields of a request: messages, tools, and variables of the chat template."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = dict(settings or {})

    def __call__(self, prompt: Any, where: str = "the prompt") -> Any:
        """The messages, or a mapping with `messages`, `tools` and `chat_template_kwargs` if there are such."""
        conversation = prompt if isinstance(prompt, Conversation) else Conversation(list(prompt))
        messages = [_served(message) for message in conversation.messages]
        settings = {**self.settings, **conversation.settings}
        more: dict[str, Any] = {"tools": conversation.tools} if conversation.tools else {}
        more |= {"chat_template_kwargs": settings} if settings else {}
        return {"messages": messages, **more} if more else messages


def _served(message: Any) -> Any:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [with_text_arguments(call) for call in message["tool_calls"]]}
