"""The page of `open-r1 compare --html`: the answers of both models side by side, those that differ first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.files import write_text
from open_r1.report.page import packed, render_page

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ComparedTask:
    """The shares of right answers in a task, their difference with its paired interval, and the samples of both for
    each problem."""

    task: str
    a: float
    b: float
    difference: float
    ci95: tuple[float, float]
    problems: Sequence[tuple[Samples, Samples]]


def write_compare_page(path: Path, names: tuple[str, str], tasks: Sequence[ComparedTask]) -> Path:
    """Writes the page. Samples have `id`, `problem`, `gold`, `completion`, `n_tokens`, `finish_reason`, `extracted` and
    `correct`."""
    pieces: dict[str, str] = {}
    shown: list[dict[str, Any]] = []
    for t, task in enumerate(tasks):
        entries = []
        for p, pair in enumerate(task.problems):
            pieces[f"{t}-{p}"] = packed([[_sample(row) for row in samples] for samples in pair])
            first = pair[0][0]
            rates = [sum(row["correct"] is True for row in samples) / len(samples) for samples in pair]
            entries.append({"id": first["id"], "problem": first["problem"], "gold": first["gold"], "rates": rates})
        shown.append({"task": task.task, "problems": entries})
    html = render_page(
        "compare.html",
        scripts=["compare.js"],
        data={"names": names, "tasks": shown},
        pieces=pieces,
        names=names,
        tasks=tasks,
    )
    write_text(path, html)
    return path


def _sample(row: Mapping[str, Any]) -> list[Any]:
    cut = row["finish_reason"] == "length"
    return [row["completion"], row["correct"], row["n_tokens"], cut, row["extracted"]]
