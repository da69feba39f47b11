"""Columns by name, also fields inside them: `reward_model.ground_truth`, as verl and DAPO write the right answer."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from open_r1.data.load import require_columns, source_name
from open_r1.errors import UserError

GOLD_COLUMNS = ("answer", "solution")
NESTED_GOLDS = ("reward_model.ground_truth",)
"""Where other projects keep the right answer; looked at if there is no column of `GOLD_COLUMNS`."""


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
            reason = f"there is no {path!r}: {parent!r} has no field {field!r}; {there}. {remedy}"
            raise UserError(f"{source_name(dataset)}: {reason.strip()}")
        where = where[field]


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or of a field in one; None where a mapping on the way is missing."""
    if path in row:
        return row[path]
    value: Any = row
    for field in path.split("."):
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def values_at(batch: Mapping[str, list[Any]], path: str) -> list[Any]:
    """`value_at` for each row of a batch of columns."""
    if path in batch:
        return batch[path]
    column, _, field = path.partition(".")
    return [value_at(value, field) if isinstance(value, Mapping) else None for value in batch[column]]


def column_of(dataset: Dataset, path: str) -> str:
    """The column in which `path` is."""
    return path if path in dataset.column_names else path.partition(".")[0]


def gold_path(dataset: Dataset, named: str | None) -> str | None:
    """Where the right answer is, if it is not in a column of `GOLD_COLUMNS`: `named`, or a field that other projects
    use. None if the columns have it, or nothing does."""
    if named is not None:
        require_path(dataset, named, remedy="Name the one with the right answer: --dataset_answer_column NAME.")
        return named
    if any(name in dataset.column_names for name in GOLD_COLUMNS):
        return None
    return next((path for path in NESTED_GOLDS if _has(dataset, path)), None)


def require_gold(dataset: Dataset, named: str | None, rewards: list[str]) -> None:
    """Raises `UserError` if `rewards`, which compare with the right answer, would find none."""
    if rewards and gold_path(dataset, named) is None and not any(name in dataset.column_names for name in GOLD_COLUMNS):
        columns = ", ".join(dataset.column_names)
        raise UserError(
            f"{source_name(dataset)}: {' and '.join(rewards)} needs the right answer, and there is no column 'answer' "
            f"or 'solution'; there are: {columns}. Name it: --dataset_answer_column NAME (NAME.FIELD for a field)."
        )


def _has(dataset: Dataset, path: str) -> bool:
    try:
        require_path(dataset, path)
    except UserError:
        return False
    return True
