"""`examples/gsm8k/record.py`: the clock over several sittings, and the row of the leaderboard."""

import argparse
import datetime
import importlib.util
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1.errors import Interrupted, UserError
from open_r1.evaluation.results import summarise

SCRIPT = Path(__file__).parents[2] / "examples" / "gsm8k" / "record.py"
spec = importlib.util.spec_from_file_location("record", SCRIPT)
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)


def load_speedrun(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)  # it imports traces.py
    spec = importlib.util.spec_from_file_location("speedrun", SCRIPT.with_name("speedrun.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stopped_run_goes_on_with_the_stage_that_was_stopped(tmp_path, monkeypatch):
    speedrun, done, stop = load_speedrun(monkeypatch), [], [True]

    def reinforce():
        if stop.pop():
            raise Interrupted("stopped")
        done.append("grpo")

    monkeypatch.setattr(speedrun, "stages", lambda args: {"sft": lambda: done.append("sft"), "grpo": reinforce})
    clock = tmp_path / "clock.txt"
    clock.write_text("begin start 100 -\nend start 110 0\n")
    command = [str(tmp_path), "--model", "m", "--train", "t"]
    with pytest.raises(Interrupted):
        speedrun.main(command)
    assert [line.split()[1::2] for line in clock.read_text().splitlines()][-1] == ["grpo", "1"]
    stop.append(False)
    speedrun.main(command)
    assert done == ["sft", "grpo"]
    assert set(record.stage_seconds(clock.read_text().splitlines())) == {"start", "sft", "grpo"}


def written(speedrun, folder, rows, **options):
    """Traces, problems and held-out problems of a speedrun."""
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = {"traces": "words", "passes": 1, "grpo_passes": 1, "apart": 0, "new_numbers": False} | options
    chosen |= {"held_out": 2, "seed": 1}
    speedrun.write_data(argparse.Namespace(out=folder, train=str(folder / "train.jsonl"), data_dir=None, **chosen))
    return [
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("traces", "problems", "held_out")
    ]


def test_the_data_of_a_speedrun_keeps_held_out_problems_apart(tmp_path, monkeypatch):
    rows = [{"problem": f"P{i}", "solution": f"<<1+{i}={i + 1}>>It is {i + 1}.\n#### {i + 1}"} for i in range(5)]
    traces, problems, test = written(load_speedrun(monkeypatch), tmp_path, rows)
    assert [trace["messages"][0]["content"] for trace in traces] == ["P0", "P1", "P2"]
    assert problems[2] == {"problem": "P2", "answer": "3"}
    assert test == [{"prompt": [{"role": "user", "content": f"P{i}"}], "answer": f"{i + 1}"} for i in (3, 4)]


def test_problems_that_are_kept_apart_are_for_grpo_alone(tmp_path, monkeypatch):
    rows = [{"problem": f"P{i}", "solution": f"It is {i}.\n#### {i}"} for i in range(5)]
    traces, problems, _ = written(load_speedrun(monkeypatch), tmp_path, rows, passes=2, apart=1)
    assert [trace["messages"][0]["content"] for trace in traces] == ["P0", "P1", "P0", "P1"]
    assert [problem["problem"] for problem in problems] == ["P0", "P1", "P2"]


def test_every_pass_and_grpo_have_other_numbers(tmp_path, monkeypatch):
    row = {
        "problem": "Jo has 30 pens and buys 50.",
        "solution": "Jo has 30 + 50 = <<30+50=80>>80 pens.\n#### 80",
    }
    options = {"passes": 3, "grpo_passes": 2, "new_numbers": True, "traces": "equations"}
    traces, problems, test = written(load_speedrun(monkeypatch), tmp_path, [row] * 3, **options)
    asked = [trace["messages"][0]["content"] for trace in traces] + [problem["problem"] for problem in problems]
    assert (
        len(set(asked)) == 4
        and asked[0] == row["problem"]
        and [t["prompt"][0]["content"] for t in test] == asked[:1] * 2
    )
    assert traces[0]["messages"][1]["content"] == "<think>\n30+50=80\n</think>\n<answer>\n80\n</answer>"
    for problem in problems:
        assert sum(map(int, re.findall(r"\d+", problem["problem"]))) == int(problem["answer"])


def test_all_sittings_of_a_stage_count_and_the_pause_between_does_not():
    lines = ["begin sft 100 -", "end sft 150 0", "begin grpo 150 -", "end grpo 250 75", "begin grpo 900 -"]
    assert record.stage_seconds([*lines, "end grpo 930 0"]) == {"sft": 50, "grpo": 130}


@pytest.mark.parametrize("lines", [["begin sft 100 -"], ["begin sft 100 -", "begin sft 900 -", "end sft 950 0"]])
def test_a_stage_that_was_killed_makes_no_record(lines):
    with pytest.raises(UserError, match="sft was killed"):
        record.stage_seconds(lines)


def test_an_empty_clock_is_a_sentence():
    with pytest.raises(UserError, match="no stage"):
        record.stage_seconds([])


def test_the_row(tmp_path):
    folder = tmp_path / "grpo" / "evaluation" / "gsm8k"
    folder.mkdir(parents=True)
    rows = [
        {"index": i, "sample": 0, "correct": i < 5, "extracted": "1", "n_tokens": 9, "finish_reason": "stop"}
        for i in range(40)
    ]
    results = {"task": "gsm8k", "model": "m"} | summarise(rows)
    (folder / "results.json").write_text(json.dumps(results))
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")
    (tmp_path / "grpo" / "run").mkdir()
    (tmp_path / "grpo" / "run" / "environment.json").write_text(json.dumps({"commit": "0123456789abcdef+changes"}))
    (tmp_path / "clock.txt").write_text("begin sft 100 -\nend sft 160 0\nbegin grpo 160 -\nend grpo 523 0\n")
    line = record.row(tmp_path, 7, "larger groups", datetime.date(2026, 12, 1))
    assert line.startswith("| 2026-12-01 | 7:03 | 12.5 [") and line.count("|") == record.HEADER.count("|")
    assert line.endswith("| 40 of gsm8k | 7 | 0123456+changes | sft 60, grpo 363 | larger groups |")
