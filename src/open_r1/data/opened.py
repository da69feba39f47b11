"""Kinds of data files, and how to open them, compressed or not."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
"""The builder of `datasets` for each kind of file."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Compressed files that are decompressed while they are read."""
DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError)
"""Errors of a compressed file that is damaged or cut short."""
REMEDIES = {
    ".zst": "decompress it first: zstd -d FILE",
    ".zip": "unpack it first: unzip FILE",
    ".xlsx": "save it as CSV (UTF-8)",
    ".xls": "save it as CSV (UTF-8)",
    ".ods": "save it as CSV (UTF-8)",
    ".pkl": "convert its rows to .jsonl or .parquet",
    ".txt": "convert its rows to .jsonl",
}
"""What to do with files of other kinds, for error messages."""


def kind_of(path: Path) -> str:
    """The suffix of a file in lower case, ignoring that of a compression: ".jsonl" for `rows.jsonl.gz`."""
    return (Path(path.stem).suffix if path.suffix in OPENERS else path.suffix).lower()


def open_bytes(path: Path) -> IO[bytes]:
    """A file's contents, decompressed."""
    return OPENERS.get(path.suffix, open)(path, "rb")
