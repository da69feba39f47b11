"""The page for reading a model's answers: one self-contained `report.html`, whatever the number of samples.

Scores, verdicts and extracted answers are plain data in the page. The answers themselves are compressed, one piece per
problem, and the browser unpacks a piece when it is opened.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.files import write_text
from open_r1.report.page import packed, render_page

COLUMNS = (
    "index",
    "id",
    "problem",
    "gold",
    "sample",
    "completion",
    "n_tokens",
    "finish_reason",
    "extracted",
    "correct",
    "reason",
)
"""Columns of `samples.parquet` that the page reads."""

SECOND_THOUGHTS = (
    r"\b(?:wait|hold on|hmm+|on second thought|let me (?:just )?(?:re-?|double[- ]?)?"
    r"(?:check|verify|think again|reconsider|consider again|examine|confirm|start over|try again|go back)"
    r"|(?:re-?|double[- ])check(?:ing)?|re-?examine|reconsider|i made a mistake|that(?:'s| is) not right)\b"
)
"""Where a model re-examines itself; the same pattern marks the passages in the browser."""

_SECOND_THOUGHTS = re.compile(SECOND_THOUGHTS, re.IGNORECASE)


@dataclass(frozen=True)
class TaskAnswers:
    """A benchmark's `results.json`, and for each problem the rows of its samples, with `COLUMNS`."""

    results: Mapping[str, Any]
    problems: Sequence[Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Page:
    """The path of the page, and how many answers it has: the first `carried` samples of each problem."""

    path: Path
    megabytes: float
    carried: int
    num_samples: int


def write_evaluation_page(path: Path, tasks: Sequence[TaskAnswers], max_megabytes: float = 200.0) -> Page:
    """Writes the page. If the answers would take more than `max_megabytes`, it has only those of the first samples of
    each problem, and says so. It always has all verdicts."""
    problems = [task.problems for task in tasks]
    num_samples = max(len(samples) for task in problems for samples in task)
    carried = num_samples
    while True:
        pieces = {
            f"{t}-{p}": packed([row["completion"] for row in s[:carried]])
            for t, task in enumerate(problems)
            for p, s in enumerate(task)
        }
        for t, task in enumerate(problems):
            if _has_programs(tasks[t].results):
                pieces |= {
                    f"{t}-{p}-programs": packed([[row["extracted"], row["reason"]] for row in s[:carried]])
                    for p, s in enumerate(task)
                }
        if sum(map(len, pieces.values())) <= max_megabytes * 1e6 or carried == 1:
            break
        carried = (carried + 1) // 2
    index = [
        {
            "results": dict(task.results),
            "programs": _has_programs(task.results),
            "problems": [_entry(samples, _has_programs(task.results)) for samples in task_problems],
        }
        for task, task_problems in zip(tasks, problems, strict=True)
    ]
    html = render_page(
        "evaluation.html",
        scripts=["answers.js"],
        title=", ".join(dict.fromkeys(Path(task.results["model"]).name for task in tasks)),
        results=[task.results for task in tasks],
        data={"tasks": index, "carried": carried, "pattern": SECOND_THOUGHTS},
        pieces=pieces,
        carried=carried,
        num_samples=num_samples,
    )
    write_text(path, html)
    return Page(path, path.stat().st_size / 1e6, carried, num_samples)


def second_thoughts(text: str) -> int:
    """Number of passages in which the model re-examines its answer."""
    return sum(1 for _ in _SECOND_THOUGHTS.finditer(text))


def _has_programs(results: Mapping[str, Any]) -> bool:
    return results.get("judged_by") == "tests"


def _entry(samples: Sequence[Mapping[str, Any]], programs: bool) -> dict[str, Any]:
    """A problem and of each sample: verdict, tokens, cut off or not, extracted answer (of a program: how its tests
    ended), second thoughts."""
    verdicts = {True: "right", False: "wrong", None: "ungradable"}
    return {
        "id": samples[0]["id"],
        "problem": samples[0]["problem"],
        "gold": samples[0]["gold"],
        "samples": [
            [
                verdicts[row["correct"]],
                row["n_tokens"],
                int(row["finish_reason"] == "length"),
                (row["reason"] or "").partition("\n")[0] if programs and row["extracted"] else row["extracted"],
                second_thoughts(row["completion"]),
            ]
            for row in samples
        ],
    }
