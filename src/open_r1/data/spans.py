"""Which characters of a rendered conversation its assistant writes, for chat templates of every kind.

A template may rewrite earlier turns as a conversation goes on (Qwen3 drops their reasoning), or close the last turn
in another way (Phi-3, gpt-oss). So nothing is compared with a shorter conversation as a whole: the conversation is
rendered a second time with marks in place of its texts, which tells where each text stands; the turn around it is
found from the generation prompt in front of it and the way in which the turn ends when it is the last one.
"""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from open_r1.data.chat import render, special_tokens
from open_r1.data.messages import split_reasoning
from open_r1.errors import UserError

Span = tuple[int, int]
_MARK = re.compile(r"openr1mark(\d+)[rct]x")


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    text: str,
    where: str,
    tools: list[dict[str, Any]] | None = None,
) -> dict[int, Span]:
    """Characters of `text` (`messages`, rendered) that the assistant writes, by message: from where its generation
    prompt ends, stop token included. An assistant's message that nothing precedes is left out.

    A template's own generation marks decide where it has them. Raises `UserError` with the turns that cannot be told.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i > 0]
    by_template = _marked_by_template(tokenizer, messages, tools)
    writers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if by_template is not None and len(by_template) == len(writers):
        return dict(zip(writers, by_template, strict=True))
    masked = [_masked(message, i) for i, message in enumerate(messages)]
    literals, marks, places = _aligned(render(tokenizer, masked, tools=tools, where=where), text, messages, where)
    spans: dict[int, Span] = {}
    lost = []
    for i in turns:
        own = [k for k, mark in enumerate(marks) if mark[0] == i]
        if not own:
            lost.append(i + 1)
            continue
        first = last = own[0]
        while last + 1 < len(marks) and marks[last + 1][0] == i and marks[last + 1] not in marks[first : last + 1]:
            last += 1
        prompt = _after_last_mark(render(tokenizer, masked[:i], tools=tools, add_generation_prompt=True, where=where))
        gap_start = places[first][0] - len(literals[first])
        start = gap_start + len(_common(literals[first], prompt, tokenizer))
        if i == len(messages) - 1:
            spans[i] = (start, len(text))
            continue
        gap = literals[last + 1]
        closing = _common(
            gap, _after_last_mark(render(tokenizer, masked[: i + 1], tools=tools, where=where)), tokenizer
        )
        if not _pieces(closing, tokenizer)[1::2]:  # a token that opens the next turn, or closes all but the last
            following = _pieces(gap[len(closing) :], tokenizer)
            closing += following[1] if len(following) > 1 and not following[0] else ""
        spans[i] = (start, places[last][1] + len(closing))
    if lost:
        raise _unknown(where, lost)
    return spans


def _unknown(where: str, numbers: list[int]) -> UserError:
    return UserError(
        f"{where}: where message {', '.join(map(str, numbers))} stands in the chat template's text cannot be told: "
        "pass a chat_template with generation marks, or learn from all tokens (assistant_only_loss: false, "
        "completion_only_loss: false)."
    )


def _marked_by_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], tools: Any
) -> list[Span] | None:
    template = tokenizer.get_chat_template(tools=tools)
    if not re.search(r"\{%-?\s*generation\s*-?%\}", template):
        return None
    names: dict[str, Any] = dict(tokenizer.special_tokens_map)
    result: Any = render_jinja_template(
        [list(messages)], tools, None, template, return_assistant_tokens_mask=True, **names
    )
    _, found = result
    return [(start, end) for start, end in found[0]]


def _masked(message: dict[str, Any], index: int) -> dict[str, Any]:
    """`message` with marks for its texts, in the same form."""
    masked = dict(message)
    if message.get("reasoning_content"):
        masked["reasoning_content"] = f"openr1mark{index}rx"
    for field in ("reasoning", "thinking"):
        if message.get(field):
            masked[field] = f"openr1mark{index}rx"
    parts = split_reasoning(message["content"]) if message["role"] == "assistant" else None
    if parts is not None:
        opening, reasoning, closing, answer = parts
        reasoning, answer = (f"openr1mark{index}{k}x" if t else "" for k, t in (("r", reasoning), ("c", answer)))
        masked["content"] = opening + reasoning + closing + answer
    elif message["content"].strip() or not message.get("tool_calls"):
        masked["content"] = f"openr1mark{index}cx"
    else:
        *calls, last = message["tool_calls"]
        masked["tool_calls"] = [*calls, {**last, "function": {**last["function"], "name": f"openr1mark{index}tx"}}]
    return masked


def _texts(message: dict[str, Any], kind: str) -> list[str]:
    """What a mark of `kind` stands for, as templates trim it."""
    parts = split_reasoning(message["content"]) if message["role"] == "assistant" else None
    if kind == "t":
        text = message["tool_calls"][-1]["function"]["name"]
    elif kind == "r":
        fields = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
        text = parts[1] if parts else next(value for value in fields if value)
    else:
        text = parts[3] if parts else message["content"]
    trimmed = [text, text.strip(), text.strip("\n"), text.lstrip(), text.rstrip(), text.lstrip("\n"), text.rstrip("\n")]
    return list(dict.fromkeys(trimmed))


def _aligned(
    rendered: str, text: str, messages: Sequence[dict[str, Any]], where: str
) -> tuple[list[str], list[tuple[int, str]], list[Span]]:
    """The texts between the marks of `rendered`, the marks, and the place of each in `text`."""
    marks = [(int(match[1]), match[0][-2]) for match in _MARK.finditer(rendered)]
    literals = re.split(r"openr1mark\d+[rct]x", rendered)
    position, places = len(literals[0]), []
    if not text.startswith(literals[0]):
        raise _unknown(where, [1])
    for k, (index, kind) in enumerate(marks):
        following, final = literals[k + 1], k == len(marks) - 1
        for value in _texts(messages[index], kind):
            end = position + len(value)
            rest = text[end:] == following if final else text.startswith(following, end)
            if text.startswith(value, position) and rest:
                break
        else:
            raise _unknown(where, [index + 1])
        places.append((position, end))
        position = end + len(following)
    return literals, marks, places


def _after_last_mark(rendered: str) -> str:
    return re.split(r"openr1mark\d+[rct]x", rendered)[-1]


def _pieces(text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Plain text and special tokens in turn."""
    tokens = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, tokens)) + ")", text) if tokens else [text]


def _common(one: str, other: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What both begin with, without cutting a special token in two."""
    common = ""
    for i, (a, b) in enumerate(zip(_pieces(one, tokenizer), _pieces(other, tokenizer), strict=False)):
        if a != b:
            return common + (_shared(a, b) if i % 2 == 0 else "")
        common += a
    return common


def _shared(one: str, other: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]
