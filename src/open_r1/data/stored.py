"""Messages in Arrow columns, where every message has the same fields, null if unused."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from open_r1.data.paths import column_of

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT = {"role": pa.string(), "content": pa.string()}
_FUNCTION = pa.struct({"name": pa.string(), "arguments": pa.string()}.items())
_CALL = pa.struct({"id": pa.string(), "type": pa.string(), "function": _FUNCTION}.items())
_MORE = {
    "reasoning_content": pa.string(),
    "name": pa.string(),
    "tool_call_id": pa.string(),
    "tool_calls": pa.list_(_CALL),
}
PLAIN = pa.list_(pa.struct(_TEXT.items()))
"""Messages with role and content only."""
FULL = pa.list_(pa.struct({**_TEXT, **_MORE}.items()))
"""Messages that may have reasoning and tool calls, whose arguments are JSON text."""


def message_type(dataset: "Dataset", path: str) -> pa.DataType:
    """The type that fits the messages in `path`: `PLAIN` if they can have no other fields, else `FULL`."""
    kind = dataset.features.arrow_schema.field(column_of(dataset, path)).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        first = next((value for value in dataset[:100][column_of(dataset, path)] if value), "")
        return FULL if str(first).lstrip().startswith("[{") else PLAIN
    for name in path.split(".")[1:] if path not in dataset.column_names else ():
        kind = kind.field(name).type if pa.types.is_struct(kind) else kind
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return PLAIN
    if not pa.types.is_struct(kind.value_type):
        return FULL
    names = [kind.value_type.field(i).name for i in range(kind.value_type.num_fields)]
    if not set(names) <= {"role", "content", "from", "value"}:
        return FULL
    roles = {role for name in {"role", "from"} & set(names) for role in _values(dataset, path, name)}
    return FULL if "function_call" in roles else PLAIN


def _values(dataset: "Dataset", path: str, field: str) -> set[Any]:
    """The distinct values of a field over all messages."""
    cells = dataset.with_format("arrow")[:][column_of(dataset, path)]
    for name in path.split(".")[1:] if path not in dataset.column_names else ():
        cells = pc.struct_field(cells, name)
    return set(pc.unique(pc.struct_field(pc.list_flatten(cells), field)).to_pylist())


def as_stored(messages: Sequence[dict[str, Any]], kind: pa.DataType) -> list[dict[str, Any]]:
    """`messages` with exactly the fields of `kind`."""
    names = [kind.value_type.field(i).name for i in range(kind.value_type.num_fields)]
    return [
        {name: _calls(message) if name == "tool_calls" else message.get(name) for name in names} for message in messages
    ]


def _calls(message: dict[str, Any]) -> list[dict[str, Any]] | None:
    return [with_text_arguments(call) for call in message.get("tool_calls", [])] or None


def with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as JSON text."""
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}
