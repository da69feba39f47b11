"""Traces as token ids, with a mask of the tokens to learn."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value
from transformers import PreTrainedTokenizerBase

from open_r1.configs import SFTConfig
from open_r1.data.caching import fingerprint
from open_r1.data.chat import check_messages, render, with_system_prompt
from open_r1.data.load import source_name
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

CHAT_PAIRS = (("problem", "solution"), ("question", "answer"))
"""Columns of text that are read as a user's and an assistant's message when nothing better is there."""


@dataclass(frozen=True)
class Marked:
    """Text with the character spans to learn; `special` is true if special tokens have yet to be added."""

    text: str
    spans: list[tuple[int, int]]
    special: bool


def tokenize_sft(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SFTConfig, system_prompt: str | None
) -> Dataset:
    """`input_ids` and `loss_mask` (1: learn this token) of each row, at most `args.max_length` tokens long.

    Rows are conversations (`messages`, or `conversations`), `prompt` and `completion` (text or messages), text
    (`args.dataset_text_field`), or one of `CHAT_PAIRS`. Rows with nothing to learn are left out; how many, and
    how many were cut, is said in one line. Raises `UserError` with source, row and column.
    """
    layout = _layout(dataset, args)
    source = source_name(dataset)
    if system_prompt and layout == "text":
        raise UserError(f"system_prompt is given, but {source} has plain text, which has no system message: remove it.")

    def to_tokens(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index + 1}"
        marked = _marked(row, layout, tokenizer, args, system_prompt, where)
        ids, mask = _tokenize(marked, tokenizer)
        kept = slice(args.max_length)
        return {"input_ids": ids[kept], "loss_mask": mask[kept], "length": len(ids), "learned": sum(mask[kept])}

    settings = (system_prompt, args.max_length, args.assistant_only_loss, args.completion_only_loss, layout)
    rows = dataset.map(
        to_tokens,
        with_indices=True,
        num_proc=args.dataset_num_proc,
        remove_columns=dataset.column_names,
        features=Features(
            input_ids=Sequence(Value("int32")),
            loss_mask=Sequence(Value("int8")),
            length=Value("int64"),
            learned=Value("int64"),
        ),
        new_fingerprint=fingerprint(dataset, tokenizer, "sft", settings),
        desc="Tokenizing",
    )
    return _drop_unlearnable(rows, args.max_length, source)


def _layout(dataset: Dataset, args: SFTConfig) -> str:
    """Which columns hold the traces: "messages", "conversations", "completion", "text" or "problem" and the like."""
    columns = set(dataset.column_names)
    text_field = args.dataset_text_field
    found = [name for name in ("messages", "conversations") if name in columns]
    if {"prompt", "completion"} <= columns:
        found.append("completion")
    if text_field in columns:
        found.insert(len(found) if text_field == "text" else 0, "text")
    found += [prompt for prompt, answer in CHAT_PAIRS if {prompt, answer} <= columns]
    if not found:
        raise UserError(
            f"{source_name(dataset)}: expected a column messages, columns prompt and completion, or "
            f"{text_field} (dataset_text_field); there are: {', '.join(dataset.column_names)}."
        )
    layout = found[0]
    if args.assistant_only_loss and layout == "text":
        raise UserError(f"assistant_only_loss is true, but {source_name(dataset)} has plain text: it needs messages.")
    if args.completion_only_loss and layout in ("messages", "conversations", "text"):
        raise UserError(
            f"completion_only_loss is true, but {source_name(dataset)} has no prompt and completion columns"
            + (": write assistant_only_loss: true." if layout != "text" else ".")
        )
    return layout


def _marked(
    row: dict[str, Any],
    layout: str,
    tokenizer: PreTrainedTokenizerBase,
    args: SFTConfig,
    system_prompt: str | None,
    where: str,
) -> Marked:
    if layout == "text":
        text = _text(row, args.dataset_text_field, where)
        return Marked(text, [(0, len(text))], special=True)
    if layout == "completion" and isinstance(row["prompt"], str):
        if system_prompt:
            raise UserError(f"{where}: system_prompt is given, but prompt is plain text, not messages: remove it.")
        if args.assistant_only_loss:
            raise UserError(f"{where}: assistant_only_loss is true, but prompt is plain text, not messages.")
        prompt, completion = _text(row, "prompt", where), _text(row, "completion", where)
        start = 0 if args.completion_only_loss is False else len(prompt)
        return Marked(prompt + completion, [(start, len(prompt + completion))], special=True)

    messages, prompt_length = _conversation(row, layout, where)
    full = with_system_prompt(messages, system_prompt)
    prompt_length += len(full) - len(messages)
    text = render(tokenizer, full, where=where)
    _require_reasoning(full, text, where)
    learn_all = args.completion_only_loss is False or prompt_length == len(full)
    if args.assistant_only_loss:
        first = 0 if learn_all else prompt_length
        parts = [(i, i + 1) for i in range(first, len(full)) if full[i]["role"] == "assistant"]
    elif learn_all:
        return Marked(text, [(0, len(text))], special=False)
    else:
        parts = [(prompt_length, len(full))]
    return Marked(text, [_span(tokenizer, full, *part, text, where) for part in parts], special=False)


def _text(row: dict[str, Any], column: str, where: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}, column {column}: expected text, found {str(value)[:40]!r}.")
    return value


def _conversation(row: dict[str, Any], layout: str, where: str) -> tuple[list[dict[str, Any]], int]:
    """The messages of a row, and how many of them are its prompt (all, if the columns make no difference)."""
    if layout in ("messages", "conversations"):
        messages = check_messages(row[layout], f"{where}, column {layout}")
        return messages, len(messages)
    if layout == "completion":
        prompt = check_messages(row["prompt"], f"{where}, column prompt")
        answer = row["completion"]
        if not isinstance(answer, str):
            return prompt + check_messages(answer, f"{where}, column completion"), len(prompt)
        return [*prompt, {"role": "assistant", "content": _text(row, "completion", where)}], len(prompt)
    problem, solution = layout, dict(CHAT_PAIRS)[layout]
    prompt = [{"role": "user", "content": _text(row, problem, where)}]
    return [*prompt, {"role": "assistant", "content": _text(row, solution, where)}], 1


def _require_reasoning(messages: list[dict[str, Any]], text: str, where: str) -> None:
    last = messages[-1]
    reasoning, closed, _ = last["content"].partition("</think>")
    reasoning = reasoning.removeprefix("<think>").strip()
    earlier = sum(message["content"].count(reasoning) for message in messages[:-1]) if reasoning else 0
    if last["role"] == "assistant" and closed and text.count(reasoning) <= earlier:
        raise UserError(
            f"{where}: the chat template leaves out the reasoning before </think>, so it would not be learned: "
            "pass a chat_template that keeps it."
        )


def _span(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], begin: int, end: int, text: str, where: str
) -> tuple[int, int]:
    """Characters of `text` that hold `messages[begin:end]`, found as the difference of two shorter renderings."""
    if begin == 0:
        raise UserError(f"{where}: the conversation starts with an assistant message: put a user message first.")
    before = render(tokenizer, messages[:begin], add_generation_prompt=True, where=where)
    upto = render(tokenizer, messages[:end], where=where) if end < len(messages) else text
    if not (text.startswith(upto) and upto.startswith(before)):
        raise UserError(
            f"{where}: the chat template changes earlier text as a conversation goes on, so the tokens of an "
            "assistant message cannot be told: pass a chat_template that only appends, or learn from all tokens "
            "(assistant_only_loss: false, completion_only_loss: false)."
        )
    return len(before), len(upto)


def _tokenize(marked: Marked, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids and loss mask: a token is learned if any of its characters is in a span, and an appended end token if
    the text before it is. Plain text gets eos."""
    encoded = tokenizer(marked.text, add_special_tokens=marked.special, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), np.array(encoded["offset_mapping"]).reshape(-1, 2)
    learn = np.zeros(len(ids), dtype=bool)
    for start, end in marked.spans:  # a special token may be empty: it counts where it stands
        after = (offsets[:, 1] > start) | (offsets[:, 0] >= start)
        before = (offsets[:, 0] < end) | (offsets[:, 1] <= end)
        learn |= after & before
    if any(end == len(marked.text) for _, end in marked.spans):  # what a post-processor appends has no characters
        added = np.array([sequence is None for sequence in encoded.sequence_ids()], dtype=bool)
        learn |= np.logical_and.accumulate(added[::-1])[::-1]
    learn[:1] = False  # nothing predicts the first token
    mask = learn.astype(int).tolist()
    if marked.special and tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        return [*ids, tokenizer.eos_token_id], [*mask, 1]
    return ids, mask


def _drop_unlearnable(rows: Dataset, max_length: int, source: str) -> Dataset:
    lengths, learned = np.array(rows["length"][:]), np.array(rows["learned"][:])
    cut, empty = int((lengths > max_length).sum()), int((learned == 0).sum())
    if (cut or empty) and os.environ.get("RANK", "0") == "0":
        logger.warning(
            "%s: of %d rows, %d are longer than max_length %d and were cut (the longest has %d tokens), "
            "and %d have nothing left to learn and were dropped.",
            source,
            len(rows),
            cut,
            max_length,
            lengths.max(),
            empty,
        )
    if empty == len(rows):
        raise UserError(f"{source}: no row has a token to learn within max_length {max_length}.")
    rows = rows.remove_columns(["length", "learned"])
    return rows.select(np.flatnonzero(learned)) if empty else rows
