"""Which columns of a dataset hold the traces to fine-tune on."""

from dataclasses import dataclass

from datasets import Dataset

from open_r1.configs import SFTConfig
from open_r1.data.columns import MESSAGES, ContextColumns, context_columns, named_or_first, prompt_path
from open_r1.data.conversations import INPUT, INSTRUCTION
from open_r1.data.load import columns_of, source_name
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
    there, text_field, source = set(dataset.column_names), args.dataset_text_field, source_name(dataset)
    pairs = [(p, a) for p, a in CHAT_PAIRS if {p, a} <= there]
    messages = named_or_first(dataset, columns.messages_column, MESSAGES, "messages_column")
    kind, paths = "", ()  # type: tuple[str, tuple[str, ...]]
    if columns.messages_column and (columns.prompt_column or columns.answer_column):
        raise UserError(
            "messages_column cannot be combined with prompt_column or answer_column: remove one or the other."
        )
    if columns.prompt_column or columns.answer_column:
        kind, paths = "chat pair", _named_pair(dataset, columns)
    elif columns.messages_column is None and text_field != "text" and text_field in there:
        kind, paths = "text", (text_field,)
    elif messages is not None:
        kind, paths = "messages", (messages,)
    elif {"prompt", "completion"} <= there:
        kind, paths = "pair", ("prompt", "completion")
    elif text_field in there:
        kind, paths = "text", (text_field,)
    elif pairs:
        more = (INPUT,) if pairs[0][0] == INSTRUCTION and INPUT in there else ()
        kind, paths = "chat pair", (*pairs[0], *more)
    else:
        raise UserError(
            f"{source}: expected a column messages, columns prompt and completion, or {text_field} "
            f"(dataset_text_field); there are: {columns_of(dataset)}. Select others: --messages_column NAME, or "
            "--prompt_column and --answer_column."
        )
    if args.assistant_only_loss and kind == "text":
        raise UserError(f"assistant_only_loss is true, but {source} has plain text: it needs messages.")
    if args.completion_only_loss and kind in ("messages", "text"):
        raise UserError(
            f"completion_only_loss is true, but {source} has no prompt and completion columns"
            + (": write assistant_only_loss: true." if kind != "text" else ".")
        )
    return Layout(kind, paths, ContextColumns() if kind == "text" else context_columns(dataset, columns, exclude=paths))


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
    return (prompt, answer, *((INPUT,) if prompt == INSTRUCTION and INPUT in dataset.column_names else ()))
