"""Which columns of a dataset hold the traces to fine-tune on."""

from dataclasses import dataclass

from datasets import Dataset

from open_r1.configs import SFTConfig
from open_r1.data.columns import MESSAGES, context_columns, named_or_first, prompt_path
from open_r1.data.conversations import INPUT, INSTRUCTION
from open_r1.data.load import columns_of, source_name
from open_r1.data.paths import ContextColumns
from open_r1.errors import UserError
from open_r1.options.columns import ColumnOptions

CHAT_PAIRS = (("problem", "solution"), ("question", "answer"), ("instruction", "output"))
"""Pairs of text columns that are read as a user and an assistant message if a dataset has no conversations."""


@dataclass(frozen=True)
class Layout:
    """Which columns hold the trace. `kind` is "messages", "text", "pair" (prompt and completion, messages or plain
    text) or "chat pair" (the texts of a user and an assistant message)."""

    kind: str
    paths: tuple[str, ...]
    context: ContextColumns


def trace_layout(dataset: Dataset, args: SFTConfig, columns: ColumnOptions) -> Layout:
    """The columns named in `columns`, else the first known ones. Raises `UserError` if there are none, or if the loss
    options do not fit them."""
    kind, paths = _kind_and_paths(dataset, args.dataset_text_field, columns)
    source = source_name(dataset)
    if args.assistant_only_loss and kind == "text":
        raise UserError(f"assistant_only_loss is true, but {source} has plain text: it needs messages.")
    if args.completion_only_loss and kind in ("messages", "text"):
        raise UserError(
            f"completion_only_loss is true, but {source} has no prompt and completion columns"
            + (": write assistant_only_loss: true." if kind != "text" else ".")
        )
    return Layout(kind, paths, ContextColumns() if kind == "text" else context_columns(dataset, columns, exclude=paths))


def _kind_and_paths(dataset: Dataset, text_field: str, columns: ColumnOptions) -> tuple[str, tuple[str, ...]]:
    present = set(dataset.column_names)
    if columns.messages_column and (columns.prompt_column or columns.answer_column):
        raise UserError(
            "messages_column cannot be combined with prompt_column or answer_column: remove one or the other."
        )
    if columns.prompt_column or columns.answer_column:
        return "chat pair", _named_pair(dataset, columns)
    if columns.messages_column is None and text_field != "text" and text_field in present:
        return "text", (text_field,)
    messages = named_or_first(dataset, columns.messages_column, MESSAGES, "messages_column")
    if messages is not None:
        return "messages", (messages,)
    if {"prompt", "completion"} <= present:
        return "pair", ("prompt", "completion")
    if text_field in present:
        return "text", (text_field,)
    for prompt, answer in CHAT_PAIRS:
        if {prompt, answer} <= present:
            return "chat pair", (prompt, answer, *_input_of(prompt, dataset))
    raise UserError(
        f"{source_name(dataset)}: expected a column messages, columns prompt and completion, or {text_field} "
        f"(dataset_text_field); there are: {columns_of(dataset)}. Select others: --messages_column NAME, or "
        "--prompt_column and --answer_column."
    )


def _named_pair(dataset: Dataset, columns: ColumnOptions) -> tuple[str, ...]:
    """The prompt and answer columns, at least one of which is named."""
    prompt = prompt_path(dataset, columns.prompt_column)
    answers = (dict(CHAT_PAIRS).get(prompt, ""), "completion", *(answer for _, answer in CHAT_PAIRS))
    answer = named_or_first(dataset, columns.answer_column, answers, "answer_column")
    if answer is None:
        raise UserError(
            f"{source_name(dataset)}: which column follows {prompt}? Select it: --answer_column NAME; there are: "
            f"{columns_of(dataset)}."
        )
    return (prompt, answer, *_input_of(prompt, dataset))


def _input_of(prompt: str, dataset: Dataset) -> tuple[str, ...]:
    """Alpaca's input column, if `prompt` is Alpaca's instruction and there is an input."""
    return (INPUT,) if prompt == INSTRUCTION and INPUT in dataset.column_names else ()
