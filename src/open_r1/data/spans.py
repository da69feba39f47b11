"""Finds the characters of a rendered conversation that the assistant writes, for any chat template.

Rendering a prefix of the conversation is not enough: a template may rewrite earlier turns as the conversation grows
(Qwen3 drops their reasoning) or close the last turn differently (Phi-3, gpt-oss). Instead, the conversation is rendered
a second time with a mark in place of each text, which locates the texts. A turn then begins where its generation prompt
ends, and ends the way it does when it is the last turn.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from open_r1.data.chat import render, special_tokens
from open_r1.data.conversations import Conversation
from open_r1.data.messages import REASONING_FIELDS, split_reasoning, texts_of
from open_r1.errors import UserError

Span = tuple[int, int]
Mark = tuple[int, str]
_MARK = re.compile(r"openr1mark(\d+)[rct]x")


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    text: str,
    where: str,
    stops: Collection[str] = (),
) -> tuple[dict[int, Span], list[int]]:
    """The span of `text` (`conversation`, rendered) that the assistant writes in each message, by message index, and
    the indices of earlier messages that end without a stop token.

    A span reaches from the end of the generation prompt through the stop token. An assistant message at the very
    beginning has no span. If the template has generation marks, they decide. `stops` are the tokens at which the model
    stops: if a template does not close a turn, the token that opens the next turn is included if it is among them
    (GLM). Raises `UserError` with the messages that cannot be located.
    """
    messages = conversation.messages
    writers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    by_template = _marked_by_template(tokenizer, conversation)
    if by_template is not None and len(by_template) == len(writers):
        return dict(zip(writers, by_template, strict=True)), []

    def rendered(messages: list[dict[str, Any]], generate: bool = False) -> str:
        return render(
            tokenizer,
            messages,
            tools=conversation.tools,
            settings=conversation.settings,
            add_generation_prompt=generate,
            where=where,
        )

    masked = [_masked(message, i) for i, message in enumerate(messages)]
    literals, marks, places = _aligned(rendered(masked), text, messages, where)
    spans: dict[int, Span] = {}
    lost, endless = [], []
    for i in writers:
        if i == 0:
            continue
        first = next((k for k, mark in enumerate(marks) if mark[0] == i), None)
        if first is None:
            lost.append(i + 1)
            continue
        as_last = rendered(masked[: i + 1])
        last = _last_mark(marks, first, _marks(as_last))
        prompt = _after_last_mark(rendered(masked[:i], generate=True))
        gap_start = places[first][0] - len(literals[first])
        start, content_end = gap_start + len(_common(literals[first], prompt, tokenizer)), places[last][1]
        if i == len(messages) - 1:
            closing = _until_stop(text[content_end:], tokenizer, stops)
        else:
            closing = _closing(literals[last + 1], _after_last_mark(as_last), tokenizer, stops)
            if not _pieces(closing, tokenizer)[1::2]:
                endless.append(i)
        spans[i] = (start, content_end + len(closing))
    if lost:
        raise _unknown(where, lost)
    return spans, endless


def _last_mark(marks: list[Mark], first: int, as_last: list[Mark]) -> int:
    """The last mark of the message whose marks begin at `first`, if `as_last` are the marks up to the end of this
    message. Later ones may be in the result of a tool, which repeats the name of the call."""
    last = first
    while last + 1 < len(marks) and marks[last + 1][0] == marks[first][0]:
        if marks[first : last + 1].count(marks[last + 1]) >= max(1, as_last.count(marks[last + 1])):
            break
        last += 1
    return last


def _closing(gap: str, as_last: str, tokenizer: PreTrainedTokenizerBase, stops: Collection[str]) -> str:
    """The part of `gap`, the text between a turn's content and the next, that closes the turn: what it shares with
    `as_last`, the text after the same content in the last turn, or everything up to the first stop token."""
    shared = _until_stop(_common(gap, as_last, tokenizer), tokenizer, stops)
    pieces = _pieces(gap, tokenizer)
    if any(piece in stops for piece in _pieces(shared, tokenizer)):
        return shared
    first_stop = next((k for k, piece in enumerate(pieces) if k % 2 and piece in stops), None)
    if first_stop is not None:
        return "".join(pieces[: first_stop + 1])
    following = _pieces(gap[len(shared) :], tokenizer)
    closed_otherwise = bool(_pieces(as_last, tokenizer)[1::2]) and not _pieces(shared, tokenizer)[1::2]
    return shared + following[1] if closed_otherwise and len(following) > 1 and not following[0] else shared


def _until_stop(text: str, tokenizer: PreTrainedTokenizerBase, stops: Collection[str]) -> str:
    """`text` through its first stop tokens and the white space around them; all of it if there is none."""
    found, pieces = "", _pieces(text, tokenizer)
    for piece in pieces:
        if found and any(stop in found for stop in stops) and piece.strip() and piece not in stops:
            return found
        found += piece
    return found


def _unknown(where: str, numbers: list[int]) -> UserError:
    return UserError(
        f"{where}: cannot locate message {', '.join(map(str, numbers))} in the rendered text: pass a chat_template "
        "with generation marks, or learn from all tokens (assistant_only_loss: false, completion_only_loss: false)."
    )


def _marked_by_template(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[Span] | None:
    tools: Any = conversation.tools
    template = tokenizer.get_chat_template(tools=tools)
    if not re.search(r"\{%-?\s*generation\s*-?%\}", template):
        return None
    names: dict[str, Any] = {**tokenizer.special_tokens_map, **conversation.settings}
    result: Any = render_jinja_template(
        [conversation.messages], tools, None, template, return_assistant_tokens_mask=True, **names
    )
    _, found = result
    return [(start, end) for start, end in found[0]]


def _masked(message: dict[str, Any], index: int) -> dict[str, Any]:
    """`message` with a mark in place of each of its texts."""
    masked = {k: f"openr1mark{index}rx" if k in REASONING_FIELDS and v else v for k, v in message.items()}
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
    """The text behind a mark of `kind`, in every way that templates trim it."""
    text = message["tool_calls"][-1]["function"]["name"] if kind == "t" else texts_of(message)[kind == "c"]
    trimmed = [text, text.strip(), text.strip("\n"), text.lstrip(), text.rstrip(), text.lstrip("\n"), text.rstrip("\n")]
    return list(dict.fromkeys(trimmed))


def _aligned(
    rendered: str, text: str, messages: Sequence[dict[str, Any]], where: str
) -> tuple[list[str], list[Mark], list[Span]]:
    """The literal text around the marks of `rendered`, the marks, and the span of `text` that each one stands for."""
    marks, literals = _marks(rendered), _literals(rendered)
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


def _marks(rendered: str) -> list[Mark]:
    return [(int(match[1]), match[0][-2]) for match in _MARK.finditer(rendered)]


def _literals(rendered: str) -> list[str]:
    return re.split(r"openr1mark\d+[rct]x", rendered)


def _after_last_mark(rendered: str) -> str:
    return _literals(rendered)[-1]


def _pieces(text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """`text` split into plain text (even indices) and special tokens (odd indices)."""
    tokens = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, tokens)) + ")", text) if tokens else [text]


def _common(one: str, other: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The common prefix of two texts, without splitting a special token."""
    common = ""
    for i, (a, b) in enumerate(zip(_pieces(one, tokenizer), _pieces(other, tokenizer), strict=False)):
        if a != b:
            length = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            return common + (a[:length] if i % 2 == 0 else "")
        common += a
    return common
