"""Finds out why data files could not be read. Called only after reading them has failed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

from open_r1.data.opened import DAMAGED, kind_of, open_bytes

_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


class _Duplicate(Exception):
    """One JSON object has the same key twice."""


def explain(files: list[Path]) -> str | None:
    """One sentence with file and row of the first fault in JSON files; None if there is none."""
    for file in files:
        reason = None
        if kind_of(file) == ".jsonl":
            reason = _explain_lines(file)
        elif kind_of(file) == ".json":
            reason = _explain_document(file)
        if reason is not None:
            return f"{file}, {reason}"
    return None


def different_columns(files: list[Path]) -> str | None:
    """One sentence with the first JSON lines file whose columns or types differ from an earlier file's; None if all
    agree."""
    first: dict[str, tuple[str, Path]] = {}
    names: set[str] | None = None
    for file in files:
        if kind_of(file) != ".jsonl":
            continue
        types = _column_types(file)
        for column, kind in types.items():
            known, where = first.setdefault(column, (kind, file))
            if known != kind:
                return f"{file}: column {column!r} holds {kind}, but {known} in {where}: use one type."
        if names is not None and set(types) != names:
            other = ", ".join(sorted(set(types) ^ names))
            return f"{file}: its columns differ from those of {files[0]} in {other}: use the same columns in both."
        names = set(types)
    return None


def mixed_column(files: list[Path], columns: list[str]) -> str | None:
    """One sentence with the first file and rows in which one of `columns` mixes two kinds of values; None if none
    does."""
    for file in files:
        first: dict[str, tuple[str, int]] = {}
        for number, row in _rows(file):
            for column in columns:
                if (value := row.get(column)) is None:
                    continue
                kind = _KINDS.get(type(value), type(value).__name__)
                known, where = first.setdefault(column, (kind, number))
                if known != kind:
                    return (
                        f"{file}: column {column!r} holds {known} in row {where} and {kind} in row {number}: use one "
                        "type."
                    )
    return None


def _rows(file: Path) -> Iterator[tuple[int, dict]]:
    """The numbered rows of a valid JSON file."""
    if kind_of(file) == ".jsonl":
        yield from ((number, json.loads(line)) for number, line in _lines(file) if line.strip())
        return
    text = "".join(line for _, line in _lines(file))
    try:
        document = json.loads(text)
    except json.JSONDecodeError:  # JSON lines under another name
        document = [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = document if isinstance(document, list) else []
    yield from enumerate((row for row in rows if isinstance(row, dict)), start=1)


def _column_types(file: Path) -> dict[str, str]:
    """The kind of value in each column: "text", "a number" and so on, or a mixture: "a number and text"."""
    found: dict[str, set[str]] = {}
    for _, line in _lines(file):
        for column, value in json.loads(line).items() if line.strip() else ():
            kinds = found.setdefault(column, set())
            if value is not None:
                kinds.add(_KINDS.get(type(value), type(value).__name__))
    return {column: " and ".join(sorted(kinds)) for column, kinds in found.items() if kinds}


def _explain_lines(file: Path) -> str | None:
    row = 0
    try:
        for number, line in _lines(file):
            row = number
            if not line.strip():
                continue
            value = json.loads(line, object_pairs_hook=_distinct)
            if not isinstance(value, dict):
                return f"row {number}: expected a JSON object, found {line.strip()[:40]}."
    except _Duplicate as error:
        return f"row {row}: one object has the key {error.args[0]!r} twice: delete or rename one."
    except json.JSONDecodeError as error:
        return f"row {row}: this line is not valid JSON ({error.msg}, character {error.pos + 1})."
    except UnicodeDecodeError:
        return f"row {row + 1}: this line is not UTF-8 text."
    except DAMAGED as error:
        return f"row {row + 1}: the compressed file is damaged or truncated ({error})."
    return "there are no rows." if row == 0 else None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for key, item in pairs:
        if key in value:
            raise _Duplicate(key)
        value[key] = item
    return value


def _explain_document(file: Path) -> str | None:
    try:
        json.loads("".join(line for _, line in _lines(file)))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a second value on another line: JSON lines under another name
            return _explain_lines(file)
        return f"line {error.lineno}: this is not valid JSON ({error.msg}, column {error.colno})."
    except (UnicodeDecodeError, *DAMAGED) as error:
        return f"the file cannot be read ({error})."
    return None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with open_bytes(file) as data:
        yield from enumerate(io.TextIOWrapper(data, encoding="utf-8-sig"), start=1)
