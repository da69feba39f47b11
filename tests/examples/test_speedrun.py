"""`examples/gsm8k/speedrun.py`: the clock over several sittings, and the row of the leaderboard."""

import datetime
import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1.errors import UserError
from open_r1.evaluation.results import summarise

SCRIPT = Path(__file__).parents[2] / "examples" / "gsm8k" / "speedrun.py"
spec = importlib.util.spec_from_file_location("speedrun", SCRIPT)
speedrun = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speedrun)


def test_all_sittings_of_a_stage_count_and_the_pause_between_does_not():
    lines = ["begin sft 100 -", "end sft 150 0", "begin grpo 150 -", "end grpo 250 75", "begin grpo 900 -"]
    assert speedrun.stage_seconds([*lines, "end grpo 930 0"]) == {"sft": 50, "grpo": 130}


@pytest.mark.parametrize("lines", [["begin sft 100 -"], ["begin sft 100 -", "begin sft 900 -", "end sft 950 0"]])
def test_a_stage_that_was_killed_makes_no_record(lines):
    with pytest.raises(UserError, match="sft was killed"):
        speedrun.stage_seconds(lines)


def test_an_empty_clock_is_a_sentence():
    with pytest.raises(UserError, match="no stage"):
        speedrun.stage_seconds([])


def test_the_row(tmp_path):
    folder = tmp_path / "evaluation" / "grpo" / "gsm8k"
    folder.mkdir(parents=True)
    rows = [
        {"index": i, "sample": 0, "correct": i < 5, "extracted": "1", "n_tokens": 9, "finish_reason": "stop"}
        for i in range(40)
    ]
    results = {"task": "gsm8k", "model": "m"} | summarise(rows)
    (folder / "results.json").write_text(json.dumps(results))
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")
    (tmp_path / "grpo" / "run").mkdir(parents=True)
    (tmp_path / "grpo" / "run" / "environment.json").write_text(json.dumps({"commit": "0123456789abcdef"}))
    (tmp_path / "clock.txt").write_text("begin sft 100 -\nend sft 160 0\nbegin grpo 160 -\nend grpo 523 0\n")
    line = speedrun.row(tmp_path, 7, "larger groups", datetime.date(2026, 12, 1))
    assert line.startswith("| 2026-12-01 | 7:03 | 12.5 [") and line.count("|") == speedrun.HEADER.count("|")
    assert line.endswith("| 40 of gsm8k | 7 | 0123456 | sft 60, grpo 363 | larger groups |")
