"""Turns traces into token ids with a mask of the tokens to learn."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value
from transformers import PreTrainedTokenizerBase

from open_r1.configs import SFTConfig
from open_r1.data.caching import fingerprint
from open_r1.data.chat import render, stop_token_ids
from open_r1.data.conversations import (
    Conversation,
    is_conversation,
    read_conversation,
    template_of,
    warn_of_losses,
    warn_of_unused,
    with_input,
)
from open_r1.data.load import source_name
from open_r1.data.messages import check_messages
from open_r1.data.paths import column_of, value_at
from open_r1.data.rendered import check_rendered
from open_r1.data.sft_columns import Layout, trace_layout
from open_r1.data.spans import assistant_spans
from open_r1.errors import UserError, warn_user
from open_r1.options.columns import ColumnOptions


@dataclass(frozen=True)
class Marked:
    """A text with the character spans to learn. `special`: whether the tokenizer has to add its special tokens."""

    text: str
    spans: list[tuple[int, int]]
    special: bool
    notes: tuple[str, ...] = ()


def tokenize_sft(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: SFTConfig,
    system_prompt: str | None,
    columns: ColumnOptions | None = None,
    stops: Collection[int] | None = None,
) -> Dataset:
    """`input_ids` and `loss_mask` (1: learn this token) of each row, truncated to `args.max_length` tokens.

    Rows are conversations (`messages` or `conversations`), `prompt` and `completion` (text or messages), text
    (`args.dataset_text_field`), or one of `CHAT_PAIRS` (Alpaca's `input` is appended to its `instruction`), unless
    `columns` names others. The columns `system` and `tools` belong to conversations. `stops` are the tokens at which
    the model stops, by default those of the tokenizer.

    What the chat template leaves out is an error or is counted in a warning. Rows with nothing to learn are dropped;
    one warning counts them and the truncated rows. Raises `UserError` with source, row and column.
    """
    layout = trace_layout(dataset, args, columns or ColumnOptions())
    source = source_name(dataset)
    if system_prompt and layout.kind == "text":
        raise UserError(f"system_prompt is set, but {source} has plain text, which has no system message: remove it.")
    stop_ids = sorted(stop_token_ids(tokenizer, None) if stops is None else stops)
    marker = _Marker(
        tokenizer, layout, args, system_prompt, {str(tokenizer.convert_ids_to_tokens(i)) for i in stop_ids}
    )
    used = {column_of(dataset, path) for path in (*layout.paths, *layout.context.paths)}
    warn_of_unused(source, (name for name in dataset.column_names if name not in used))

    def to_tokens(row: dict[str, Any], index: int) -> dict[str, Any]:
        marked = marker(row, f"{source}, row {index + 1}")
        ids, mask = _tokenize(marked, tokenizer)
        ids, mask, length = ids[: args.max_length], mask[: args.max_length], len(ids)
        return {
            "input_ids": ids,
            "loss_mask": mask,
            "length": length,
            "learned": sum(mask),
            "notes": list(marked.notes),
        }

    settings = (system_prompt, args.max_length, args.assistant_only_loss, args.completion_only_loss, layout, stop_ids)
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


class _Marker:
    """Turns rows into `Marked` texts."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        args: SFTConfig,
        system_prompt: str | None,
        stops: set[str],
    ) -> None:
        self.tokenizer, self.layout, self.args, self.system_prompt = tokenizer, layout, args, system_prompt
        self.stops, self.template = stops, template_of(tokenizer)

    def __call__(self, row: dict[str, Any], where: str) -> Marked:
        """The text of a row and the spans to learn. Raises `UserError` with `where`."""
        layout = self.layout
        if layout.kind == "text":
            text = _text(row, layout.paths[0], where)
            return Marked(text, [(0, len(text))], special=True)
        if layout.kind == "pair" and not any(is_conversation(row[path]) for path in layout.paths):
            return self._plain_pair(row, where)
        messages, prompt_length = _messages(row, layout, where)
        full = read_conversation(messages, row, layout.context, self.system_prompt, where)
        prompt_length += len(full.messages) - len(messages)
        return self._conversation(replace(full, messages=self.template.placed(full.messages)), prompt_length, where)

    def _plain_pair(self, row: dict[str, Any], where: str) -> Marked:
        if self.system_prompt:
            raise UserError(f"{where}: system_prompt is set, but prompt is plain text, not messages: remove it.")
        alone = read_conversation([{"role": "user", "content": ""}], row, self.layout.context, None, where)
        if len(alone.messages) > 1 or alone.tools or alone.settings:
            columns = " and ".join(self.layout.context.paths)
            raise UserError(
                f"{where}: prompt is plain text, which cannot have {columns}: write prompt as messages, or remove "
                f"{columns}."
            )
        if self.args.assistant_only_loss:
            raise UserError(f"{where}: assistant_only_loss is true, but prompt is plain text, not messages.")
        prompt, completion = (_text(row, path, where) for path in self.layout.paths)
        start = 0 if self.args.completion_only_loss is False else len(prompt)
        return Marked(prompt + completion, [(start, len(prompt + completion))], special=True)

    def _conversation(self, full: Conversation, prompt_length: int, where: str) -> Marked:
        tokenizer, messages = self.tokenizer, full.messages
        text = render(tokenizer, messages, tools=full.tools, settings=full.settings, where=where)
        notes = check_rendered(messages, text, full.tools, where)
        end, eos = "", str(tokenizer.eos_token or "")
        if messages[-1]["role"] == "assistant" and not self.template.ends and eos and not text.rstrip().endswith(eos):
            end = eos
            notes.append(f"end without a stop token in the chat template, so {end} is added")
        learn_all = self.args.completion_only_loss is False or prompt_length == len(messages)
        if learn_all and not self.args.assistant_only_loss:
            return Marked(text + end, [(0, len(text + end))], False, tuple(notes))
        found, endless = assistant_spans(tokenizer, full, text, where, self.stops)
        if endless:
            notes.append(
                "have earlier turns without a stop token in the chat template, so no stop token is learned there"
            )
        first = 0 if learn_all else prompt_length
        if messages[0]["role"] == "assistant" and first == 0 and 0 not in found:
            notes.append("begin with an assistant message, which is not learned")
        if self.args.assistant_only_loss:
            spans = [span for i, span in found.items() if i >= first]
            if end and spans:
                spans[-1] = (spans[-1][0], len(text + end))
            return Marked(text + end, spans, False, tuple(notes))
        if prompt_length not in found:
            raise UserError(f"{where}: expected an assistant message at the beginning of the completion.")
        return Marked(text + end, [(found[prompt_length][0], len(text + end))], False, tuple(notes))


def _text(row: dict[str, Any], path: str, where: str) -> str:
    value = value_at(row, path)
    if isinstance(value, int | float) and value == value:  # a column of numbers in a CSV file
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}, column {path}: expected text, found {str(value)[:40]!r}.")
    return value


def _messages(row: dict[str, Any], layout: Layout, where: str) -> tuple[list[dict[str, Any]], int]:
    """The messages of a row, and how many of them are the prompt (all, if one column holds them)."""
    if layout.kind == "messages":
        messages = check_messages(value_at(row, layout.paths[0]), f"{where}, column {layout.paths[0]}")
        return messages, len(messages)
    asked, answer, *more = layout.paths
    prompt = _side(row, asked, "user", where)
    if more:
        prompt[-1]["content"] = with_input(prompt[-1]["content"], value_at(row, more[0]))
    return prompt + _side(row, answer, "assistant", where), len(prompt)


def _side(row: dict[str, Any], path: str, role: str, where: str) -> list[dict[str, Any]]:
    """The messages in one column of a pair: a conversation, or a text by `role`."""
    value = value_at(row, path)
    if is_conversation(value) or value == []:
        return check_messages(value, f"{where}, column {path}")
    return [{"role": role, "content": _text(row, path, where)}]


def _tokenize(marked: Marked, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids and loss mask. A token is learned if any of its characters is in a span; an appended end token, if the
    text before it is. Plain text gets an eos token."""
    encoded = tokenizer(marked.text, add_special_tokens=marked.special, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), np.array(encoded["offset_mapping"]).reshape(-1, 2)
    learn = np.zeros(len(ids), dtype=bool)
    for start, end in marked.spans:  # a special token without characters belongs to the span around it
        after = (offsets[:, 1] > start) | (offsets[:, 0] >= start)
        before = (offsets[:, 0] < end) | (offsets[:, 1] <= end)
        learn |= after & before
    if any(end == len(marked.text) for _, end in marked.spans):  # tokens of a post-processor have no characters
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
    if cut or empty:
        warn_user(
            "%s: of %d rows, %d are longer than max_length %d and were truncated (the longest has %d tokens), and %d "
            "have nothing left to learn and were dropped.",
            source,
            len(rows),
            cut,
            max_length,
            lengths.max(),
            empty,
        )
    warn_of_losses(source, Counter(note for notes in rows["notes"][:] for note in notes), len(rows))
    if empty == len(rows):
        raise UserError(
            f"{source}: no row has a token to learn within max_length {max_length}: raise it, or check the rows."
        )
    rows = rows.remove_columns(["length", "learned", "notes"])
    return rows.select(np.flatnonzero(learned)) if empty else rows
