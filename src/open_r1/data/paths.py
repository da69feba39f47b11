"""Values in rows, by path: the name of a column, or of a field in one, such as `reward_model.ground_truth`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # engines do not need it, and it takes a second to import
    from datasets import Dataset


@dataclass(frozen=True)
class ContextColumns:
    """The paths, if any, of what accompanies the messages of a row: `system` (the system prompt), `tools`, and
    `settings` (variables of the chat template)."""

    system: str | None = None
    tools: str | None = None
    settings: str | None = None

    @property
    def paths(self) -> list[str]:
        return [path for path in (self.system, self.tools, self.settings) if path is not None]


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """The value of a column, or of a field in one; None if the path ends early."""
    if path in row:
        return row[path]
    value: Any = row
    for field in path.split("."):
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def values_at(batch: Mapping[str, list[Any]], path: str) -> list[Any]:
    """`value_at` for every row of a batch, which maps columns to lists."""
    if path in batch:
        return batch[path]
    column, _, field = path.partition(".")
    return [value_at(value, field) if isinstance(value, Mapping) else None for value in batch[column]]


def column_of(dataset: "Dataset", path: str) -> str:
    """The column that contains `path`."""
    return path if path in dataset.column_names else path.partition(".")[0]
