"""`benchmarks/scaling.py`: a table for each model, layouts that fail, and results that are not measured twice."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ["--device", "cpu", "--gpus", "1", "2", "--backends", "ddp", "fsdp", "--shapes", "tiny", "small"]


@pytest.fixture(scope="module")
def scaling():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("scaling")


@pytest.fixture
def asked(scaling, monkeypatch):
    """Cases that were run; FSDP2 of SFT fails, others have 100 tokens/s and 60 more a GPU."""
    seen = []

    def answer(case):
        seen.append(scaling.name(case))
        if (case["task"], case["backend"]) == ("sft", "fsdp"):
            return {"error": "ended with exit code 1\nmore", "seconds": [], "log": "the reason"}
        rate = 40 + 60 * case["gpus"]
        return {"tokens_per_second": rate, "range": [rate, rate + 1], "seconds": [1.0], "peak_gib": 1.5, "error": None}

    def launch(args, group, timeout):
        return [answer(case) for case in group]

    monkeypatch.setattr(scaling, "launch", launch)
    return seen


def test_each_model_has_a_table_and_a_layout_that_fails_is_a_row(scaling, asked, tmp_path, capsys):
    words = [*WORDS, "--results", str(tmp_path / "found.jsonl")]
    scaling.main(words)
    shown, errors = capsys.readouterr()
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(asked) == 2 * 2 * 3 and asked[:3] == [
        "tiny, sft, 1 GPU, one",
        "tiny, grpo, 1 GPU, one",
        "tiny, sft, 2 GPUs, ddp",
    ]
    assert [row.split(" | ")[0] for row in rows if "GPUs" in row] == ["| tiny", "| small"]
    assert "| sft | 2 | ddp | 160 | 160 to 161 | 80% | 1.5 | - |   |" in rows
    assert "| sft | 2 | fsdp | - | - | - | - | - | ended with exit code 1 |" in rows
    assert errors.count("the reason") == 2
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 12
    scaling.main([*words, "--table"])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == rows
    scaling.main(words)
    assert len(asked) == 12
    scaling.main([*words, "--steps", "9"])  # other settings are other results
    assert len(asked) == 24


def test_a_case_that_is_cut_or_does_not_begin_is_left_for_a_run_of_its_own(scaling, monkeypatch, tmp_path, capsys):
    groups = []

    def launch(args, group, timeout):
        groups.append([case["task"] for case in group])
        done = {"tokens_per_second": 5, "range": [5, 5], "seconds": [1.0], "error": None}
        return [done, {"cut": "ended with exit code 1", "seconds": [], "error": None}][: len(group)]

    monkeypatch.setattr(scaling, "launch", launch)
    scaling.main([*WORDS[:-3], "--shapes", "tiny", "--gpus", "1", "--results", str(tmp_path / "found.jsonl")])
    assert groups == [["sft", "grpo"], ["grpo"]]
    assert "| grpo | 1 | one | 5 |" in capsys.readouterr().out


def test_what_the_time_does_not_suffice_for_is_named_and_left_for_the_next_call(scaling, asked, tmp_path, capsys):
    words = [*WORDS[:-1], "--tasks", "grpo", "--results", str(tmp_path / "found.jsonl"), "--time_budget"]
    scaling.main([*words, "1"])
    assert asked == [] and "  tiny, grpo, 2 GPUs, fsdp" in capsys.readouterr().out
    scaling.main([*words, "100"])
    assert len(asked) == 3


def test_long_documents_are_shared_by_as_many_gpus_as_divide_them(scaling, asked):
    layouts = ["--gpus", "1", "4", "--backends", "ddp", "--tasks", "--lengths", "512", "--share", "1", "2", "3", "4"]
    scaling.main(["--device", "cpu", "--shapes", "tiny", *layouts])
    assert asked == [
        "tiny, sft, 512 tokens, 1 GPU, one",
        "tiny, sft, 512 tokens, 4 GPUs, ddp",
        "tiny, sft, 512 tokens, 4 GPUs, ddp, packs shared by 2",
        "tiny, sft, 512 tokens, 4 GPUs, ddp, packs shared by 4",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [["--tasks", "sft", "grpo"], ["--tasks", "--lengths", "512", "--share", "1", "2"]])
def test_every_layout_runs_on_two_cpu_processes(scaling, tmp_path, layout, capsys):
    """Without DeepSpeed."""
    sizes = ["--max_length", "512", "--rows", "2", "--completions", "8", "--cap", "64", "--steps", "1", "--warmup", "1"]
    words = [*WORDS[:-1], *sizes, *layout, "--results", str(tmp_path / "found.jsonl")]
    scaling.main(words)
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [result["error"] for result in found] == [None] * (6 if "grpo" in layout else 5)
    assert all(result["tokens_per_second"] > 0 and result["peak_gib"] > 0 for result in found)
    backends = {result["case"]["backend"]: result["backend"] for result in found}
    assert backends == {"one": "single", "ddp": "ddp", "fsdp": "fsdp2"}
