"""Checks text files before `datasets` reads them, for faults that would crash it, shift columns or exhaust memory.

Lines are read in bounded memory, and parsed only if they look suspicious. A JSON document is parsed as a whole.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.data.opened import DAMAGED, kind_of, open_bytes
from open_r1.errors import UserError, warn_user
from open_r1.files import check_no_lfs_pointers

LONGEST_LINE = 64 << 20
"""Limit of a row, in bytes, uncompressed."""
MANY_BRACKETS = 200
"""A line with more brackets is parsed, to check how deeply they are nested."""
CONSTANTS = ("NaN", "Infinity")
"""Numbers that Python writes although JSON does not have them."""
ROWS = {"data", "rows", "examples", "train", "items", "records", "instances", "dataset", "samples", "problems"}
"""Fields that hold the rows of a document with several fields."""


def check_text_files(files: list[Path]) -> dict[str, Any]:
    """Raises `UserError` with file, line and remedy for the first fault in .jsonl, .json, .csv and .tsv files.

    Returns arguments for `load_dataset`: for CSV files, the separator and `converters` that keep numbers as they are
    written; for a JSON document, the `field` with the rows, if they are in one.
    """
    arguments: dict[str, tuple[Any, Path]] = {}
    for file in files:
        check_no_lfs_pointers(file, "dataset")
        kind = kind_of(file)
        found: dict[str, Any] = {}
        if kind in (".jsonl", ".json"):
            found = {"field": _check_json(file, lines_only=kind == ".jsonl")}
        elif kind in (".csv", ".tsv"):
            found = _check_csv(file)
        for name, value in found.items():
            known, other = arguments.setdefault(name, (value, file))
            if name == "converters":
                known.update(value)
            elif known != value:
                raise UserError(f"{file}: its {name} is {value!r}, but {other} has {known!r}: use the same in both.")
    return {name: value for name, (value, _) in arguments.items() if value != ""}


def _check_json(file: Path, lines_only: bool) -> str:
    """The field with the rows of a JSON document, if they are in one, else ""."""
    document = None if lines_only else _read_document(file)
    if document is not None:
        return _check_document(file, document)
    for number, line in _lines(file, bounded=lines_only):
        where = f"{file}, row {number}"
        if lines_only and line.strip() and line.lstrip("\ufeff \t\r\n")[:1] != "{":
            raise UserError(f"{where}: expected a JSON object, found {line.strip()[:40]}: delete the line.")
        many_brackets = line.count("[") + line.count("{") > MANY_BRACKETS
        if many_brackets or any(mark in line for mark in ("\\ud", "\\uD", *CONSTANTS)):
            _check_value(line, where)
    return ""


def _read_document(file: Path) -> list[Any] | dict[str, Any] | None:
    """The JSON document in `file`; None if it is broken, or JSON lines under another name."""
    try:
        with open_bytes(file) as data:
            text = data.read().decode("utf-8-sig")
    except (*DAMAGED, OSError, UnicodeDecodeError):
        return None  # reported when its lines are checked, or by the reader
    try:
        value = json.loads(text, parse_constant=_Constant)
    except RecursionError:
        raise UserError(f"{file}: brackets are nested too deeply: flatten its values.") from None
    except ValueError:
        return None
    return value if isinstance(value, list | dict) else None


def _check_document(file: Path, value: list[Any] | dict[str, Any]) -> str:
    """Checks a document row by row. Returns the field that holds the rows, or "" if none does."""
    field = _field_with_rows(file, value) if isinstance(value, dict) else ""
    rows = value if isinstance(value, list) else value[field] if field else [value]
    for number, row in enumerate(rows, start=1):
        where = f"{file}, row {number}"
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object, found {str(row)[:40]!r}: write rows as objects.")
        _check_constants(row, where)
        if _check_encodes(row, where) > LONGEST_LINE and rows != [value]:
            raise UserError(f"{where}: the row has more than {LONGEST_LINE >> 20} MiB: split or delete it.")
    return field


def _field_with_rows(file: Path, value: dict[str, Any]) -> str:
    """The field of a document that holds its list of rows; "" if the document is itself a row."""
    if _holds_columns(value):
        raise UserError(
            f"{file}: the document has columns ({', '.join(value)}), not rows: write a list of objects, or lines "
            "(pandas: to_json(FILE, orient='records', lines=True))."
        )
    lists = [name for name, rows in value.items() if _are_rows(rows)]
    if len(lists) > 1 and len(lists) == len(value):
        raise UserError(
            f"{file}: the document has several lists of rows ({', '.join(lists)}): write each to a separate file."
        )
    fields = [name for name in lists if len(value) == 1 or name.lower() in ROWS]
    if len(fields) != 1:
        return ""
    others = ", ".join(name for name in value if name not in fields)
    left_out = f"; {others} is ignored" if others else ""
    warn_user("%s: reading the %d rows under %r%s.", file, len(value[fields[0]]), fields[0], left_out)
    return fields[0]


def _are_rows(value: Any) -> bool:
    objects = isinstance(value, list) and value != [] and all(isinstance(row, dict) for row in value)
    return objects and not any({"role", "from"} & row.keys() for row in value)


def _holds_columns(value: dict[str, Any]) -> bool:
    """Whether the fields are columns: lists of plain values, or mappings from row numbers, all of one length."""
    lengths = {len(v) if isinstance(v, list | dict) else 0 for v in value.values()}
    if len(value) < 2 or len(lengths) != 1 or max(lengths) < 2:
        return False
    fields = value.values()
    if all(isinstance(v, list) and not any(isinstance(item, list | dict) for item in v) for v in fields):
        return True
    return all(isinstance(v, dict) and all(key.isdigit() for key in v) for v in fields)


class _Constant(float):
    """NaN or an infinity, as the parser found it."""


def _check_constants(value: Any, where: str) -> None:
    """Raises `UserError` for a `_Constant` in a row."""
    for column, item in value.items() if isinstance(value, dict) else ():
        waiting = [item]
        while waiting:
            item = waiting.pop()
            if isinstance(item, _Constant):
                raise UserError(
                    f"{where}, column {column}: NaN and Infinity are not JSON values: write null, or remove the value."
                )
            waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []


def _check_value(line: str, where: str) -> None:
    try:
        value = json.loads(line, parse_constant=_Constant)
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply: delete the line, or flatten its values.") from None
    except ValueError:
        return  # part of a document, or a fault that the reader reports
    _check_constants(value, where)
    _check_encodes(value, where)


def _check_encodes(value: Any, where: str) -> int:
    """The size of a value as JSON, in bytes. Raises `UserError` for half a surrogate pair."""
    try:
        return len(json.dumps(value, ensure_ascii=False).encode())
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply: delete the line, or flatten its values.") from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is not a character: replace it with \\ufffd."
        ) from None


def _check_csv(file: Path) -> dict[str, Any]:
    """How to read a CSV file. The separator is the one of comma, semicolon and tab that splits the header into most
    columns. Words such as NA and None are text."""
    csv.field_size_limit(LONGEST_LINE)
    first = next((line for _, line in _lines(file)), "")
    if first.lower().startswith("sep="):
        raise UserError(f"{file}, line 1: {first.strip()!r} is not a header: delete the line.")
    candidates = "\t" if kind_of(file) == ".tsv" else ",;\t"
    separator = max(candidates, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    rows = csv.reader((line for _, line in _lines(file)), delimiter=separator)
    name = {",": "comma", ";": "semicolon", "\t": "tab"}[separator]
    try:
        header = next(rows, [])
        if doubled := [column for column, count in Counter(header).items() if count > 1]:
            raise UserError(f"{file}, line 1: two columns are named {doubled[0]!r}: rename one.")
        keep_text: dict[str, type] = {}
        for row in rows:
            keep_text |= {column: str for column, cell in zip(header, row, strict=False) if _changes_as_number(cell)}
            if row and len(row) != len(header):
                raise UserError(
                    f"{file}, line {rows.line_num}: {len(row)} values, but the header names {len(header)} columns: put "
                    f"quotes around a value that holds a {name}."
                )
    except csv.Error as error:
        raise UserError(f"{file}, line {rows.line_num}: {error}: close the quotes, or shorten the value.") from error
    return {"sep": separator, "keep_default_na": False, "na_values": [""], "converters": keep_text}


def _changes_as_number(cell: str) -> bool:
    """Whether a cell would look different after being parsed as a number: 007, 1.50."""
    try:
        return len(cell) < 40 and cell not in (str(float(cell)), str(int(float(cell))))
    except (ValueError, OverflowError):
        return False


def _lines(file: Path, bounded: bool = True) -> Iterator[tuple[int, str]]:
    """Numbered lines, up to where the file is damaged or cut short: the reader reports that."""
    with open_bytes(file) as data:
        number = 0
        while True:
            number += 1
            try:
                line = data.readline(LONGEST_LINE + 1)
            except (*DAMAGED, OSError):
                return
            if not line:
                return
            if len(line) > LONGEST_LINE:
                if not bounded:
                    return
                raise UserError(
                    f"{file}, row {number}: the line has more than {LONGEST_LINE >> 20} MiB: split or delete it."
                )
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise UserError(
                        f"{file}: the file is in UTF-16; convert it: iconv -f utf-16 -t utf-8 {file.name} > "
                        f"utf8{file.suffix}."
                    ) from error
                raise UserError(
                    f"{file}, row {number}: this line is not UTF-8 text (byte 0x{line[error.start]:02x}); if the file "
                    f"is in Latin-1, convert it: iconv -f latin1 -t utf-8 {file.name} > utf8{file.suffix}."
                ) from error
