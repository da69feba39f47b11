"""The page of the demo: one self-contained `report.html`, made from the files of the demo."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from markupsafe import Markup

from open_r1.errors import UserError
from open_r1.report.page import render_page
from open_r1.report.plan import STAGES, draw_plan
from open_r1.report.recorder import read_metrics

MOST_TEXT = 3_000_000
"""Characters of model output in one page. Further problems are counted but not shown."""

SAMPLE_COLUMNS = ["problem", "gold", "completion", "n_tokens", "finish_reason", "correct"]

_ASKED = {"sums": "is asked for sums", "code": "is asked for programs"}
_JUDGED = {"sums": "", "code": " Each program runs in a sandbox on tests that the model never sees."}

_REWARD_CHARTS = [
    ("reward", "Reward", False),
    ("rewards/{reward}/mean", "Right answers on training problems", True),
    ("completions/mean_length", "Length of an answer, in tokens", False),
]


@dataclass(frozen=True)
class Result:
    """A row of the table for one stage. Shares are between 0 and 1; `seconds` cover training and evaluation."""

    name: str
    accuracy: float
    low: float
    high: float
    n: int
    mean_tokens: float
    seconds: float

    @property
    def title(self) -> str:
        return STAGES[self.name].title

    @property
    def color(self) -> str:
        return STAGES[self.name].color


def write_demo_report(output_dir: Path | str) -> Path:
    """Writes `<output_dir>/report.html` and returns its path.

    Reads `results.json`, and of each stage `run/metrics.jsonl` (if it was trained) and
    `evaluation/<task>/samples.parquet`. The page loads nothing: it works offline, by double click.
    """
    output_dir = Path(output_dir)
    results, seconds, task = read_results(output_dir / "results.json")
    problems = _problems(output_dir, task, [result.name for result in results])
    shown = _as_many_as_fit(problems)
    html = render_page(
        "demo.html",
        scripts=["charts.js", "demo.js"],
        styles=["demo.css"],
        results=results,
        stages=STAGES,
        findings=findings(results),
        seconds=seconds,
        asked=_ASKED[task],
        judged=_JUDGED[task],
        task=task,
        example=problems[0]["problem"] if problems else "",
        plan=Markup(draw_plan({result.name: result.accuracy for result in results})),
        data={
            "stages": [{"name": r.name, "title": r.title, "color": r.color} for r in results],
            "problems": shown,
            "curves": _curves(output_dir, task, results),
        },
        shown=len(shown),
        total=len(problems),
    )
    path = output_dir / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def read_results(path: Path) -> tuple[list[Result], float, str]:
    """The stages in `results.json`, in the order of the plan, the seconds of the whole demo, and its task."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a finished `open-r1 demo`.")
    content = json.loads(path.read_text(encoding="utf-8"))
    by_name = {stage["name"]: stage for stage in content["stages"]}
    results = [
        Result(
            name=name,
            accuracy=stage["accuracy"],
            low=stage["ci95"][0],
            high=stage["ci95"][1],
            n=stage["n"],
            mean_tokens=stage["mean_tokens"],
            seconds=stage["seconds"],
        )
        for name in STAGES
        if (stage := by_name.get(name))
    ]
    return results, content["seconds"], content.get("task", "sums")


def findings(results: Sequence[Result]) -> list[tuple[Result, str]]:
    """One sentence for each trained stage about its result, whether or not training helped."""
    base = next((result for result in results if result.name == "base"), None)
    if base is None:
        return []
    return [(result, _finding(base, result)) for result in results if result is not base]


def _finding(base: Result, result: Result) -> str:
    points = round((result.accuracy - base.accuracy) * 100)
    if result.low <= base.high and base.low <= result.high:
        change = f"which is not distinguishable from the base's {base.accuracy:.0%} with {result.n:,} problems"
    else:
        change = f"{abs(points)} points {'above' if points > 0 else 'below'} the base"
    ratio = result.mean_tokens / base.mean_tokens if base.mean_tokens else 1.0
    if ratio > 1.05:
        length = f"answers {ratio:.1f} times as long"
    elif ratio < 0.95:
        length = f"answers shorter ({result.mean_tokens:.0f} tokens instead of {base.mean_tokens:.0f})"
    else:
        length = "answers as long as before"
    return f"{result.accuracy:.0%} right, {change}, with {length}"


def _problems(output_dir: Path, task: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each held-out problem with the outputs of the stages, in the order of `names`."""
    problems: list[dict[str, Any]] = []
    for name in names:
        path = output_dir / name / "evaluation" / task / "samples.parquet"
        if not path.exists():
            command = shlex.join(["open-r1", "demo", "--output", str(output_dir)])
            raise UserError(f"{path} does not exist: run `{command}` to its end.")
        rows = pq.ParquetFile(path).read(columns=SAMPLE_COLUMNS).to_pylist()
        if not problems:
            problems = [{"problem": r["problem"], "gold": str(r["gold"]), "outputs": []} for r in rows]
        if [p["problem"] for p in problems] != [r["problem"] for r in rows]:
            raise UserError(f"{path} has other problems than the stages before it: evaluate all stages again.")
        for problem, row in zip(problems, rows, strict=True):
            problem["outputs"].append(
                {
                    "text": row["completion"],
                    "tokens": row["n_tokens"],
                    "cut": row["finish_reason"] == "length",
                    "right": bool(row["correct"]),
                }
            )
    return problems


def _as_many_as_fit(problems: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shown, characters = [], 0
    for problem in problems:
        characters += len(problem["problem"]) + sum(len(output["text"]) for output in problem["outputs"])
        if characters > MOST_TEXT:
            break
        shown.append(problem)
    return shown


def _curves(output_dir: Path, task: str, results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """The charts for `charts.js`, by the id of their element."""
    rewarded = {name: _metrics(output_dir / name) for name in ("zero", "multi_stage")}
    taught = {"distil": _metrics(output_dir / "distil"), "multi_stage": _metrics(output_dir / "multi_stage_sft")}
    reward = {"sums": "accuracy", "code": "binary_code"}[task]
    charts = []
    for key, title, percent in _REWARD_CHARTS:
        chart = _chart(title, "GRPO step", rewarded, key.format(reward=reward)) | {"percent": percent}
        if percent and results and results[0].name == "base":
            chart["level"] = {"name": "base, on held-out problems:", "y": results[0].accuracy}
        charts.append(chart)
    return {"grpo": charts, "sft": [_chart("Loss of fine-tuning", "SFT step", taught, "loss")]}


def _chart(title: str, axis: str, metrics: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> dict[str, Any]:
    series = []
    for name, rows in metrics.items():
        logged = [row for row in rows if key in row]
        x, y = [row["step"] for row in logged], [row[key] for row in logged]
        series.append({"name": STAGES[name].title, "color": STAGES[name].color, "x": x, "y": y})
    return {"title": title, "axis": axis, "series": series}


def _metrics(stage_dir: Path) -> list[dict[str, Any]]:
    return read_metrics(stage_dir / "run") if (stage_dir / "run" / "metrics.jsonl").exists() else []
