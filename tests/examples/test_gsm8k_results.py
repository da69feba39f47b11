"""`examples/gsm8k/results.py`, on a made run in which SFT teaches a quarter of the problems and GRPO half of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1.evaluation.results import summarise

SCRIPT = Path(__file__).parents[2] / "examples" / "gsm8k" / "results.py"
PROBLEMS = 40


def write_evaluation(folder, samples, right):
    """`right` of the problems are answered by every sample, the others by none."""
    folder.mkdir(parents=True)
    rows = [
        {
            "index": i,
            "id": f"p{i}",
            "prompt": f"Problem {i}",
            "sample": s,
            "correct": i < right,
            "extracted": "1",
            "n_tokens": 100 + i,
            "finish_reason": "length" if i == 0 else "stop",
        }
        for i in range(PROBLEMS)
        for s in range(samples)
    ]
    (folder / "results.json").write_text(json.dumps({"task": "gsm8k"} | summarise(rows)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")


def write_metrics(folder, steps):
    folder.mkdir(parents=True)
    line = {"completions/mean_length": 105.0, "frac_reward_zero_std": 0.5, "completions/clipped_ratio": 0.01}
    line |= {"time/generation": 3.0, "time/scoring": 0.1, "time/training": 1.0, "time/weight_update": 0.02}
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            score = {"step": step, "reward": 0.1 + step / 100, "rewards/accuracy/mean": step / 100}
            file.write(json.dumps(line | score | ({"entropy": 0.6} if step % 2 else {})) + "\n")


def results(run):
    return subprocess.run([sys.executable, SCRIPT, run], capture_output=True, text=True)


def test_tables_differences_and_curves(tmp_path):
    for model, right in (("base", 0), ("sft", 10), ("grpo", 20)):
        write_evaluation(tmp_path / "evaluation" / model / "greedy" / "gsm8k", 1, right)
        write_evaluation(tmp_path / "evaluation" / model / "deepseek" / "gsm8k", 8, right)
    write_metrics(tmp_path / "grpo" / "run", 30)
    done = results(tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "results.md").read_text()
    assert text in done.stdout and "zero" not in text
    sft = next(line for line in text.splitlines() if line.startswith("| sft |")).split(" | ")
    assert [cell.split()[0] for cell in sft[1:5]] == ["25.0", "25.0", "25.0", "120"]  # mean of 100 to 139: 119.5
    assert sft[5] == "2.5%"
    gain = next(line for line in text.splitlines() if line.startswith("| grpo - sft | greedy"))
    assert "+25.0 [" in gain and gain.endswith("| 2.00 |")
    assert "| grpo | 30 | 3.00 s | 0.10 s | 1.00 s | 0.02 s | 2.1 min |" in text
    picture = ElementTree.parse(tmp_path / "curves.svg").getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}svg")) == 6


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_an_evaluation_is_a_sentence(tmp_path, folder):
    done = results(tmp_path / folder)
    assert done.returncode == 2 and "has no finished evaluation" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["OUT", "TRAIN"])
def test_the_script_refuses_a_path_with_spaces_before_it_begins(tmp_path, name):
    environment = os.environ | {name: str(tmp_path / "my runs")}
    done = subprocess.run([SCRIPT.with_name("run.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: OUT or TRAIN is ") and "without spaces" in done.stderr
    assert not (tmp_path / "my runs").exists()
