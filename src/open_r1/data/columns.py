"""Finds columns by name, or fields in them by path: `reward_model.ground_truth`, as in datasets for verl and DAPO."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from open_r1.data.load import columns_of, require_columns, source_name
from open_r1.data.paths import ContextColumns
from open_r1.errors import UserError, did_you_mean
from open_r1.options.columns import ConversationColumns

PROMPTS = ("prompt", "problem", "question", "instruction")
"""Columns that may hold the prompt, the most specific first."""
PROBLEMS = ("problem", "question", "instruction", "prompt", "messages", "conversations")
"""Columns that may hold the bare problem, without the instructions of a prompt: what the dataset tools compare."""
MESSAGES = ("messages", "conversations")
"""Columns that may hold whole conversations."""
GOLD_COLUMNS = ("answer", "solution")
"""Columns of the gold answer that rewards read."""
OTHER_GOLDS = ("final_answer",)
"""Columns that replace `answer` in other datasets, which keep the worked solution in `solution`."""
NESTED_GOLDS = ("reward_model.ground_truth",)
"""Fields that hold the gold answer in other datasets, tried if there is no such column."""


def context_columns(dataset: Dataset, columns: ConversationColumns, *, exclude: Sequence[str] = ()) -> ContextColumns:
    """What accompanies the messages of `dataset`, except the columns `exclude`, which hold the messages themselves.
    Raises `UserError` if a named column does not exist."""
    found = ContextColumns(
        named_or_first(dataset, columns.system_column, ("system",), "system_column"),
        named_or_first(dataset, columns.tools_column, ("tools",), "tools_column"),
        named_or_first(dataset, None, ("chat_template_kwargs",), ""),
    )
    return ContextColumns(*(None if path in exclude else path for path in (found.system, found.tools, found.settings)))


def named_or_first(dataset: Dataset, named: str | None, defaults: Sequence[str], option: str) -> str | None:
    """The column `named` by `option`, else the first of `defaults` that exists, else None. Raises `UserError` if the
    named column does not exist."""
    if named is not None:
        require_path(dataset, named, remedy=f"Select another one: --{option} NAME (NAME.FIELD for a field).")
        return named
    return next((name for name in defaults if name in dataset.column_names), None)


def prompt_path(dataset: Dataset, named: str | None, defaults: Sequence[str] = PROMPTS) -> str:
    """The prompt's path: `named`, else the first of `defaults` that exists. Raises `UserError` if there is none."""
    found = named_or_first(dataset, named, defaults, "prompt_column")
    if found is None:
        columns = columns_of(dataset)
        raise UserError(
            f"{source_name(dataset)}: there is no column {', '.join(defaults[:-1])} or {defaults[-1]}; there are: "
            f"{columns}. Select the column with the problem: --prompt_column NAME (NAME.FIELD for a field)."
        )
    return found


def require_path(dataset: Dataset, path: str, *, remedy: str = "") -> None:
    """Raises `UserError` unless `path` is a column, or a field (`a.b`) of one that holds mappings."""
    if path in dataset.column_names:
        return
    column, *fields = path.split(".")
    require_columns(dataset, column if fields else path, remedy=remedy)
    where: Any = dataset.features[column]
    for depth, field in enumerate(fields, 1):
        if not isinstance(where, dict) or field not in where:
            parent = ".".join([column, *fields[: depth - 1]])
            there = f"its fields are: {', '.join(where)}" if isinstance(where, dict) else "it has no fields"
            hint = did_you_mean(field, where if isinstance(where, dict) else ())
            reason = f"there is no {path!r}: {parent!r} has no field {field!r}; {there}.{hint} {remedy}"
            raise UserError(f"{source_name(dataset)}: {reason.strip()}")
        where = where[field]


def feature_at(dataset: Dataset, path: str) -> Any:
    """The `datasets` feature of a column, or of a field in one."""
    feature: Any = dataset.features
    for name in [path] if path in dataset.column_names else path.split("."):
        feature = feature[name]
    return feature


def gold_path(dataset: Dataset, named: str | None) -> str | None:
    """The path of the gold answer outside `GOLD_COLUMNS`: `named`, or one that other projects use. None if the answer
    is in `GOLD_COLUMNS` or nowhere."""
    if named is not None:
        return named_or_first(dataset, named, (), "answer_column")
    columns = dataset.column_names
    other = next((name for name in OTHER_GOLDS if name in columns), None)
    if "answer" in columns or (other is None and "solution" in columns):
        return None
    return other or next((path for path in NESTED_GOLDS if _has(dataset, path)), None)


def gold_paths(dataset: Dataset, named: str | None) -> list[str]:
    """The paths of the gold answer; empty if there is none."""
    path = gold_path(dataset, named)
    return [path] if path else [name for name in GOLD_COLUMNS if name in dataset.column_names]


def require_gold(dataset: Dataset, named: str | None, rewards: list[str]) -> None:
    """Raises `UserError` if there are `rewards` (names of those that need a gold answer) but no gold answers."""
    if rewards and not gold_paths(dataset, named):
        columns = columns_of(dataset)
        raise UserError(
            f"{source_name(dataset)}: {' and '.join(rewards)} needs the right answer, but there is no column 'answer' "
            f"or 'solution'; there are: {columns}. Select it: --answer_column NAME (NAME.FIELD for a field)."
        )


def _has(dataset: Dataset, path: str) -> bool:
    try:
        require_path(dataset, path)
    except UserError:
        return False
    return True
