"""Options that select columns, with the same names and defaults in every command that reads rows."""

from dataclasses import dataclass
from typing import Annotated

from open_r1.options.annotations import Alias


@dataclass(kw_only=True)
class ConversationColumns:
    """Columns (a field in one: COLUMN.FIELD)."""

    messages_column: str | None = None
    """Column with conversations. Default: `messages`, else `conversations`."""
    system_column: str | None = None
    """Column with the system prompt of a row. Default: `system`, if there is one."""
    tools_column: str | None = None
    """Column with the tools of a row, as JSON schemas. Default: `tools`, if there is one."""


@dataclass(kw_only=True)
class ColumnOptions(ConversationColumns):
    """Columns (a field in one: COLUMN.FIELD)."""

    prompt_column: Annotated[str | None, Alias("dataset_prompt_column", "column")] = None
    """Column with the problem: text or a list of messages. Default: the first of `prompt`, `problem`, `question` and
    `instruction` (with Alpaca's `input`)."""
    answer_column: Annotated[str | None, Alias("dataset_answer_column")] = None
    """Column with the right answer; for `sft`, with the answer to learn. Default: `answer`, `final_answer`,
    `solution`, or verl's `reward_model.ground_truth`."""
