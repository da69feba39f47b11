"""Text files are checked before they are read: what would end the process, shift columns or fill the memory is named.

Lines are read in bounded memory, and only parsed where they look suspicious; a document of JSON is parsed whole.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.files import check_no_lfs_pointers

LONGEST_LINE = 64 << 20
"""Bytes of a row, uncompressed."""
DEEPEST = 200
"""Brackets in a line from which on its nesting is looked at."""


def check_text_files(files: list[Path]) -> None:
    """Raises `UserError` with file, line and remedy for the first fault of .jsonl, .json and .csv files."""
    for file in files:
        check_no_lfs_pointers(file, "dataset")
        kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
        if kind in (".jsonl", ".json"):
            _check_json(file, lines_only=kind == ".jsonl")
        elif kind == ".csv":
            _check_csv(file)


def _check_json(file: Path, lines_only: bool) -> None:
    if not lines_only and _check_document(file):
        return
    for number, line in _lines(file, bounded=lines_only):
        where = f"{file}, row {number}"
        if lines_only and line.strip() and line.lstrip("\ufeff \t\r\n")[:1] != "{":
            raise UserError(f"{where}: expected a JSON object, found {line.strip()[:40]}: delete the line.")
        if line.count("[") + line.count("{") > DEEPEST or "\\ud" in line or "\\uD" in line:
            _check_value(line, where)


def _check_document(file: Path) -> bool:
    """Checks a document that is no JSON lines, row by row; False if it is JSON lines under another name, or broken."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as data:
            text = data.read().decode("utf-8-sig")
    except (EOFError, OSError, UnicodeDecodeError):
        return False  # the pass over lines, or the reader, names it
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError(f"{file}: brackets are nested too deeply: flatten its values.") from None
    except ValueError:
        return False
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        where = f"{file}, row {number}"
        size = _check_encodes(row, where)
        if isinstance(value, list) and size > LONGEST_LINE:
            raise UserError(f"{where}: the row has more than {LONGEST_LINE >> 20} MiB: split or delete it.")
    return True


def _check_value(line: str, where: str) -> None:
    try:
        value = json.loads(line)
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply: delete the line, or flatten its values.") from None
    except ValueError:
        return  # a document of several lines, or a fault that the reader names
    _check_encodes(value, where)


def _check_encodes(value: Any, where: str) -> int:
    """Bytes of a value as JSON. Raises `UserError` for half a surrogate pair."""
    try:
        return len(json.dumps(value, ensure_ascii=False).encode())
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply: delete the line, or flatten its values.") from None
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is no character: replace it by \\ufffd."
        ) from None


def _check_csv(file: Path) -> None:
    csv.field_size_limit(LONGEST_LINE)
    rows = csv.reader(line for _, line in _lines(file))
    try:
        header = next(rows, [])
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(
                    f"{file}, line {rows.line_num}: {len(row)} values, but the header names {len(header)} columns: put "
                    "quotes around a value that holds a comma."
                )
    except csv.Error as error:
        raise UserError(f"{file}, line {rows.line_num}: {error}: close its quotes, or shorten the value.") from error


def _lines(file: Path, bounded: bool = True) -> Iterator[tuple[int, str]]:
    """Lines and their numbers. What is damaged or cut short ends them: the reader names it."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as data:
        number = 0
        while True:
            number += 1
            try:
                line = data.readline(LONGEST_LINE + 1)
            except (EOFError, OSError):
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
                raise UserError(
                    f"{file}, row {number}: this line is not UTF-8 text (byte 0x{line[error.start]:02x}); if it is "
                    f"Latin-1, convert it: iconv -f latin1 -t utf-8 {file.name} > utf8{file.suffix}."
                ) from error
