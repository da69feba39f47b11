"""Data files by the kind of their contents, compressed or not."""

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
"""Kinds of files, with the builder of `datasets` that reads them."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Compression that is undone while reading."""
DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError)
"""What a compressed file that is damaged or cut short raises."""
REMEDIES = {
    ".zst": "decompress it first: zstd -d FILE",
    ".zip": "unpack it first: unzip FILE",
    ".xlsx": "save it as CSV (UTF-8)",
    ".xls": "save it as CSV (UTF-8)",
    ".ods": "save it as CSV (UTF-8)",
    ".pkl": "convert its rows to .jsonl or .parquet",
    ".txt": "convert its rows to .jsonl",
}
"""What to do with files of other kinds."""


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds, without that of a compression."""
    return (Path(path.stem).suffix if path.suffix in OPENERS else path.suffix).lower()


def open_bytes(path: Path) -> IO[bytes]:
    """A file's contents, decompressed."""
    return OPENERS.get(path.suffix, open)(path, "rb")
