"""Summary of a finished run: figures over all its shards, as a table, a file and a data card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich import box
from rich.table import Table

from open_r1.errors import UserError
from open_r1.files import write_json
from open_r1.generation.store import shard_files
from open_r1.report.card import code, short
from open_r1.report.dataset_card import write_dataset_card
from open_r1.report.environment import describe_environment

COLUMNS = {
    "problem": "the problem, as in the source",
    "prompt": "the messages that were sent to the model",
    "index": "row in the source",
    "sample": "index of the completion for this problem, from 0",
    "completion": "the text of the completion",
    "n_tokens": "its length in tokens",
    "finish_reason": "`stop`, or `length` if it reached the token limit",
    "seed": "seed of the sample",
    "extracted": "the final answer in the completion",
    "correct": "whether it equals the right answer; null if that cannot be decided",
    "reason": "the reason of the verdict",
}


def summarise(folder: Path) -> dict[str, Any]:
    """Figures of all rows in `folder`. Tokens per second refer to the time spent generating."""
    rows = right = ungradable = no_answer = truncated = 0
    lengths: list[int] = []
    seconds, solved, seen = 0.0, set[int](), set[int]()
    for path in shard_files(folder):
        table = pq.read_table(path, columns=["index", "correct", "extracted", "finish_reason", "n_tokens"])
        seconds += float((table.schema.metadata or {}).get(b"seconds", 0))
        index, correct = table["index"].to_numpy(), table["correct"].to_pylist()
        is_right = np.array([value is True for value in correct], dtype=bool)
        rows, right = rows + len(table), right + int(is_right.sum())
        ungradable += correct.count(None)
        no_answer += table["extracted"].null_count
        truncated += table["finish_reason"].to_pylist().count("length")
        lengths += table["n_tokens"].drop_null().to_pylist()  # some servers do not report all
        solved |= set(index[is_right].tolist())
        seen |= set(index.tolist())
    if not rows:
        raise UserError(f"{folder}: there are no rows.")
    tokens = sum(lengths)
    return {
        "rows": rows,
        "problems": len(seen),
        "right": right,
        "problems_with_a_right_answer": len(solved),
        "truncated": truncated,
        "no_answer": no_answer,
        "ungradable": ungradable,
        "tokens": tokens,
        "mean_tokens": round(tokens / max(1, len(lengths)), 1),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
    }


def begin(folder: Path, model: str, sources: Sequence[str]) -> None:
    """Writes `run/environment.json`, and a card that says that the run is not finished."""
    about = {"model": model, "sources": list(sources), **describe_environment()}
    write_json(folder / "run" / "environment.json", about)
    _write_card(folder, None)


def finish(folder: Path, left_out: int = 0) -> dict[str, Any]:
    """Writes `run/summary.json` and the data card of a finished run, and returns the figures."""
    figures = summarise(folder) | ({"prompts_too_long": left_out} if left_out else {})
    write_json(folder / "run" / "summary.json", figures)
    _write_card(folder, figures)
    return figures


def _write_card(folder: Path, figures: Mapping[str, Any] | None) -> None:
    about, settings = (
        json.loads((folder / "run" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("environment", "settings")
    )
    settings = {"model": short(about["model"])} | {n: v for n, v in settings.items() if v is not None}
    write_dataset_card(
        folder,
        what=f"Answers of {code(short(about['model']))}, graded.",
        sources=about["sources"],
        settings=settings,
        figures=figures,
        columns=COLUMNS,
    )


def summary_table(figures: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    rows = figures["rows"]
    table.add_row("rows", f"{rows:,}", "")
    for name in ("right", "truncated", "no_answer", "ungradable"):
        table.add_row(name.replace("_", " "), f"{figures[name]:,}", f"{figures[name] / rows:.1%}")
    solved, problems = figures["problems_with_a_right_answer"], figures["problems"]
    table.add_row("problems with a right answer", f"{solved:,}", f"{solved / problems:.1%}")
    if figures.get("prompts_too_long"):
        table.add_row("prompts that were too long and skipped", f"{figures['prompts_too_long']:,}", "")
    table.add_row("tokens per completion", f"{figures['mean_tokens']:,.0f}", "")
    if figures["tokens_per_second"]:
        table.add_row("tokens per second", f"{figures['tokens_per_second']:,.0f}", "")
    return table
