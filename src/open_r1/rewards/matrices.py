r"""Matrices and column vectors: `\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}`."""

import re

_KIND = r"(?:[pbB]?matrix|smallmatrix|array)"
_MATRIX = re.compile(
    rf"[(\[]?\s?\\begin\s?\{{({_KIND})\}}\s?(?:\{{[^{{}}]*\}})?((?:(?!\\begin|\\end).)*+)\\end\s?\{{\1\}}\s?[)\]]?",
    re.DOTALL,
)
_ROW = re.compile(r"\\\\|\\cr(?![A-Za-z])")
MAX_CELLS = 256

Rows = list[list[str]]


def read(text: str) -> Rows | None:
    """The rows of the matrix that cleaned `text` consists of, None for anything else."""
    found = _MATRIX.fullmatch(text.strip()) if "\\begin" in text else None
    if found is None:
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in _ROW.split(found[2].replace("\\hline", ""))]
    if rows and rows[-1] == [""]:
        rows.pop()
    if (
        not rows
        or len({len(row) for row in rows}) > 1
        or not all(map(all, rows))
        or len(rows) * len(rows[0]) > MAX_CELLS
    ):
        return None
    return rows


def column(rows: Rows) -> list[str] | None:
    """The entries of a matrix with one column."""
    return [row[0] for row in rows] if len(rows[0]) == 1 < len(rows) else None
