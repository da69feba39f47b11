"""`benchmarks/long.py`: settings until one fits, results that are not measured twice, and rows that end in an error."""

import importlib
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
WORDS = ["--shapes", "tiny", "--train", "full", "--sft", "96", "--grpo", "48"]
CASE = {"shape": "tiny", "train": "full", "task": "sft", "length": 96, "compiled": False, "setting": "offload"}


@pytest.fixture(scope="module")
def long():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("long")


def test_settings_are_tried_until_one_fits_and_nothing_twice(long, tmp_path, monkeypatch, capsys):
    asked = []

    def apart(case, steps, timeout):
        asked.append((case["task"], case["setting"]))
        full = case["setting"] == "plain" and case["task"] == "sft"
        figures = {"error": "out of memory: CUDA"} if full else {"seconds": [1.0], "tokens_per_second": 1234}
        return {"case": long.name(case), "settings": case | {"estimate": 2**30}, "peak_gib": 1.25} | figures

    monkeypatch.setattr(long, "measure_apart", apart)
    words = [*WORDS, "--results", str(tmp_path / "found.jsonl")]
    long.main([*words, "--time_budget", "10"])
    assert asked == []
    long.main(words)
    assert asked == [("sft", "plain"), ("sft", "chunks"), ("grpo", "plain")]
    shown = capsys.readouterr().out
    assert "The time budget is spent" in shown
    assert "| tiny full, sft 96, plain | - | 1.2 | 1.0 | out of memory: CUDA |" in shown
    assert "| tiny full, grpo 48, plain | 1,234 | 1.2 | 1.0 | fits |" in shown
    table = shown[shown.rindex(long.HEAD) :]
    for again in ([], ["--table"]):
        long.main([*words, *again])
        assert capsys.readouterr().out == table
    assert len(asked) == 3


@pytest.mark.parametrize("change", [{}, {"task": "grpo", "length": 48}])
def test_a_row_is_measured_beside_its_estimate(long, tmp_path, change):
    long.measure(CASE | change, 1, tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["error"] is None
    assert found["tokens"] == [2 * 96 if not change else 4 * (48 + long.PROMPT)]
    assert found["tokens_per_second"] > 0
    assert 0 < found["settings"]["estimate"] < 2**30


def test_too_little_memory_is_a_result(long, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(long.OursSFT, "pack_loss", full)
    long.measure(dict(CASE), 1, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["error"].startswith("out of memory: CUDA")


def test_a_process_that_dies_is_a_result(long, monkeypatch):
    monkeypatch.setattr(long.sys, "executable", "false")
    assert long.measure_apart(CASE, 1, 60)["error"] == "ended with status 1: no output"
