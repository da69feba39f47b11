"""Problems as prompts for GRPO."""

from collections import Counter
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, LargeList, List, Value
from transformers import PreTrainedTokenizerBase

from open_r1.data.caching import fingerprint
from open_r1.data.chat import encode
from open_r1.data.columns import context_columns, feature_at, gold_path, gold_paths, prompt_path
from open_r1.data.conversations import (
    INPUT,
    INSTRUCTION,
    ConversationRenderer,
    prompt_messages,
    read_conversation,
    warn_of_losses,
)
from open_r1.data.load import source_name
from open_r1.data.paths import value_at
from open_r1.data.stored import as_stored, message_type
from open_r1.errors import UserError, warn_user
from open_r1.options.columns import ColumnOptions

LOST = "__lost__"
"""Temporary column with notes on what the chat template leaves out."""


def prompt_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: ColumnOptions | None = None,
    system_prompt: str | None = None,
) -> Dataset:
    """`dataset` with `prompt` (messages), `prompt_text` (rendered, with the generation prompt) and `prompt_ids`.

    A text becomes one user message; the columns `system` and `tools` belong to it. Other columns are kept for the
    rewards. If the gold answer is not in `answer` or `solution` but in a column that `columns` names or that other
    projects use, it is copied to `answer`. What the chat template leaves out is an error or is counted in a warning.
    Raises `UserError` with source, row and column for a missing column, an empty problem, a conversation that already
    ends with an answer, and a row without a gold answer.
    """
    columns = columns or ColumnOptions()
    path, source = prompt_path(dataset, columns.prompt_column), source_name(dataset)
    gold, golds = gold_path(dataset, columns.answer_column), gold_paths(dataset, columns.answer_column)
    context = context_columns(dataset, columns, exclude=[path])
    kind, renderer = message_type(dataset, path), ConversationRenderer(tokenizer)

    def to_prompt(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index + 1}"
        if golds and all(_is_empty(value_at(row, name)) for name in golds):
            names = " and ".join(golds)
            raise UserError(
                f"{where}, column {names}: the right answer is empty, so no completion can be right: fill it in, or "
                "remove the row."
            )
        more = row.get(INPUT) if path == INSTRUCTION else None
        messages = prompt_messages(value_at(row, path), f"{where}, column {path}", more)
        conversation = read_conversation(messages, row, context, system_prompt, where)
        text, lost = renderer.text(conversation, f"{where}, column {path}")
        found = value_at(row, gold) if gold else None
        return {
            **({"answer": found if isinstance(found, list) else str(found)} if gold else {}),
            "prompt": as_stored(conversation.messages, kind),
            "prompt_text": text,
            "prompt_ids": encode(tokenizer, text),
            LOST: lost,
        }

    made: dict[str, Any] = {
        "prompt": Features.from_arrow_schema(pa.schema({"prompt": kind}))["prompt"],
        "prompt_text": Value("string"),
        "prompt_ids": List(Value("int64")),
        LOST: List(Value("string")),
    }
    if gold:
        feature = feature_at(dataset, gold)
        made["answer"] = feature if isinstance(feature, List | LargeList) else Value("string")
    rows = dataset.map(
        to_prompt,
        with_indices=True,
        features=Features({**dataset.features, **made}),
        desc="Prompts",
        new_fingerprint=fingerprint(dataset, tokenizer, "prompts", path, system_prompt, gold, context),
    )
    warn_of_losses(source, Counter(note for notes in rows[LOST] for note in notes), len(rows))
    return rows.remove_columns([LOST])


def drop_long_prompts(rows: Dataset, context: int | None, max_completion_length: int) -> Dataset:
    """`rows` without the prompts that leave too little room for a completion in `context` tokens (None: no limit).

    Logs how many are dropped. Raises `UserError` if none is left.
    """
    if context is None:
        return rows
    room = context - max_completion_length
    kept = [i for i, ids in enumerate(rows["prompt_ids"]) if len(ids) <= room]
    if not kept:
        raise UserError(
            f"max_completion_length is {max_completion_length}, which leaves {max(room, 0)} of the model's {context} "
            "tokens of context to the prompt, but every prompt is longer: lower it."
        )
    if len(kept) < len(rows):
        warn_user(
            "%s: dropped %d of %d prompts, which are longer than %d tokens (the context of %d minus "
            "max_completion_length %d).",
            source_name(rows),
            len(rows) - len(kept),
            len(rows),
            room,
            context,
            max_completion_length,
        )
        return rows.select(kept)
    return rows


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
