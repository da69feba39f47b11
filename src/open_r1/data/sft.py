"""Traces as token ids, with a mask of the tokens to learn."""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value
from transformers import PreTrainedTokenizerBase

from open_r1.configs import SFTConfig
from open_r1.data.caching import fingerprint
from open_r1.data.chat import end_of_turn, place_reasoning, reasoning_field, render, with_system_prompt
from open_r1.data.load import source_name
from open_r1.data.messages import check_messages, check_tools
from open_r1.data.rendered import check_rendered
from open_r1.data.spans import assistant_spans
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

CHAT_PAIRS = (("problem", "solution"), ("question", "answer"), ("instruction", "output"))
"""Columns of text that are read as a user's and an assistant's message when nothing better is there."""


@dataclass(frozen=True)
class Marked:
    """Text with the character spans to learn; `special` is true if special tokens have yet to be added."""

    text: str
    spans: list[tuple[int, int]]
    special: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """What the chat template does: the field from which it takes reasoning, and whether it ends an assistant's turn."""

    reasoning: str | None
    ends: bool


def tokenize_sft(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: SFTConfig, system_prompt: str | None
) -> Dataset:
    """`input_ids` and `loss_mask` (1: learn this token) of each row, at most `args.max_length` tokens long.

    Rows are conversations (`messages`, or `conversations`), `prompt` and `completion` (text or messages), text
    (`args.dataset_text_field`), or one of `CHAT_PAIRS` (Alpaca's `input` follows its `instruction`). Columns `system`
    and `tools` go with conversations. What the text leaves out is an error, or counted in a warning. Rows with nothing
    to learn are left out; how many, and how many were cut, is said in one line. Raises `UserError` with source, row and
    column.
    """
    layout = _layout(dataset, args)
    source = source_name(dataset)
    if system_prompt and layout == "text":
        raise UserError(f"system_prompt is given, but {source} has plain text, which has no system message: remove it.")

    template = Template(reasoning_field(tokenizer), end_of_turn(tokenizer) is not None)
    _say_unused(dataset, layout, args, source)

    def to_tokens(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index + 1}"
        marked = _marked(row, layout, tokenizer, args, system_prompt, template, where)
        ids, mask = _tokenize(marked, tokenizer)
        kept = slice(args.max_length)
        return {
            "input_ids": ids[kept],
            "loss_mask": mask[kept],
            "length": len(ids),
            "learned": sum(mask[kept]),
            "notes": list(marked.notes),
        }

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
            notes=Sequence(Value("string")),
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
    template: Template,
    where: str,
) -> Marked:
    if layout == "text":
        text = _text(row, args.dataset_text_field, where)
        return Marked(text, [(0, len(text))], special=True)
    if layout == "completion" and isinstance(row["prompt"], str) and isinstance(row["completion"], str):
        if system_prompt:
            raise UserError(f"{where}: system_prompt is given, but prompt is plain text, not messages: remove it.")
        if args.assistant_only_loss:
            raise UserError(f"{where}: assistant_only_loss is true, but prompt is plain text, not messages.")
        prompt, completion = _text(row, "prompt", where), _text(row, "completion", where)
        start = 0 if args.completion_only_loss is False else len(prompt)
        return Marked(prompt + completion, [(start, len(prompt + completion))], special=True)

    messages, prompt_length = _conversation(row, layout, where)
    full = place_reasoning(_with_system(messages, row, system_prompt, where), template.reasoning)
    prompt_length += len(full) - len(messages)
    tools = check_tools(row.get("tools"), f"{where}, column tools")
    text = render(tokenizer, full, tools=tools, where=where)
    notes = check_rendered(full, text, tools, where)
    end = ""
    if full[-1]["role"] == "assistant" and not template.ends and tokenizer.eos_token is not None:
        end = str(tokenizer.eos_token)
        notes.append(f"end without a stop token in the chat template, so {end} is added")
    learn_all = args.completion_only_loss is False or prompt_length == len(full)
    if learn_all and not args.assistant_only_loss:
        return Marked(text + end, [(0, len(text + end))], False, tuple(notes))
    found = assistant_spans(tokenizer, full, text, where, tools)
    first = 0 if learn_all else prompt_length
    if full[0]["role"] == "assistant" and first == 0 and 0 not in found:
        notes.append("begin with an assistant's message, which is not learned")
    if args.assistant_only_loss:
        spans = [span for i, span in found.items() if i >= first]
        if end and spans:
            spans[-1] = (spans[-1][0], len(text + end))
        return Marked(text + end, spans, False, tuple(notes))
    if prompt_length not in found:
        raise UserError(f"{where}, column completion: expected an assistant's message at its beginning.")
    return Marked(text + end, [(found[prompt_length][0], len(text + end))], False, tuple(notes))


def _with_system(
    messages: list[dict[str, Any]], row: dict[str, Any], system_prompt: str | None, where: str
) -> list[dict[str, Any]]:
    own = row.get("system")
    if isinstance(own, str) and own.strip():
        if messages[0]["role"] == "system" and messages[0]["content"].strip() != own.strip():
            raise UserError(f"{where}: the column system and the first message are different system prompts: keep one.")
        return with_system_prompt(messages, own)
    return with_system_prompt(messages, system_prompt)


def _say_unused(dataset: Dataset, layout: str, args: SFTConfig, source: str) -> None:
    used = {
        "text": {args.dataset_text_field},
        "completion": {"prompt", "completion", "system", "tools"},
        "instruction": {"instruction", "input", "output", "system", "tools"},
    }.get(layout, {layout, dict(CHAT_PAIRS).get(layout, layout), "system", "tools"})
    unused = [name for name in dataset.column_names if name not in used]
    if unused and os.environ.get("RANK", "0") == "0":
        logger.warning("%s: columns that are not in the text: %s.", source, ", ".join(unused))


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
        given = row["prompt"]
        plain = isinstance(given, str) and given.lstrip()[:1] != "["
        prompt = (
            [{"role": "user", "content": _text(row, "prompt", where)}]
            if plain
            else check_messages(given, f"{where}, column prompt")
        )
        answer = row["completion"]
        if not isinstance(answer, str):
            return prompt + check_messages(answer, f"{where}, column completion"), len(prompt)
        return [*prompt, {"role": "assistant", "content": _text(row, "completion", where)}], len(prompt)
    problem, solution = layout, dict(CHAT_PAIRS)[layout]
    asked = _text(row, problem, where)
    if problem == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        asked += "\n\n" + row["input"]
    prompt = [{"role": "user", "content": asked}]
    return [*prompt, {"role": "assistant", "content": _text(row, solution, where)}], 1


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
    for note, count in Counter(note for notes in rows["notes"][:] for note in notes).items():
        if os.environ.get("RANK", "0") == "0":
            logger.warning("%s: %d of %d rows %s.", source, count, len(rows), note)
    if empty == len(rows):
        raise UserError(f"{source}: no row has a token to learn within max_length {max_length}.")
    rows = rows.remove_columns(["length", "learned", "notes"])
    return rows.select(np.flatnonzero(learned)) if empty else rows
