"""`benchmarks/evaluation_layouts.py`: a table for each model, cases that fail, results that are not measured twice."""

import importlib
import json
from pathlib import Path

import pytest
from toys import make_model, make_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def layouts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("evaluation_layouts")


@pytest.fixture
def words(tmp_path):
    model = make_model(make_tokenizer(tmp_path / "toy", pad=None), max_position_embeddings=1024)
    rows = [{"problem": f"{i} + {i}?", "answer": str(2 * i)} for i in range(8)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--models", str(model), "--data", str(tmp_path / "sums.jsonl"), "--gpus", "1", "2", "3"]
    return [*words, "--results", str(tmp_path / "found.jsonl")]


def rows_of(shown):
    return [line for line in shown.splitlines() if line.startswith("| ") and "---" not in line]


def test_a_table_has_rates_with_and_without_start_up(layouts, words, monkeypatch, capsys):
    """A GPU has 100 tokens/s, each further one 90; starting takes 10 seconds; vLLM on one GPU fails."""
    asked = []

    def launch(self, case, timeout):
        asked.append((case["engine"], case["gpus"]))
        if asked[-1] == ("vllm", 1):
            return {"error": "ended with exit code 2", "log": "the reason"}
        tokens = 10 * (100 + 90 * (case["gpus"] - 1))
        return {"samples": 8, "tokens": tokens, "seconds": 10.0, "whole_seconds": 20.0, "pass@1": 0.0}

    monkeypatch.setattr(layouts.Evaluations, "launch", launch)
    layouts.main(words)
    shown, errors = capsys.readouterr()
    head, *rows = rows_of(shown)
    assert head.startswith("| toy | GPUs |")
    # Three GPUs do not divide the toy's four heads.
    assert asked == [("native", 1), ("native", 2), ("native", 3), ("vllm", 1), ("vllm", 2)]
    assert rows == [
        "| native engines | 1 | 8 | 100 | 100.0% | 50 | 10.0 | 10.0 |   |",
        "| native engines | 2 | 8 | 190 | 95.0% | 95 | 10.0 | 10.0 |   |",
        "| native engines | 3 | 8 | 280 | 93.3% | 140 | 10.0 | 10.0 |   |",
        "| vLLM, tensor parallel | 1 | - | - | - | - | - | - | ended with exit code 2 |",
        "| vLLM, tensor parallel | 2 | 8 | 190 | - | 95 | 10.0 | 10.0 |   |",
    ]
    assert "the reason" in errors
    layouts.main([*words, "--table"])
    assert rows_of(capsys.readouterr().out) == [head, *rows] and len(asked) == 5


@pytest.mark.slow
def test_every_engine_gets_the_same_work(layouts, words, tmp_path, capsys):
    """On CPU processes. The next command has nothing to measure; a command that fails says why."""
    sizes = ["--gpus", "1", "2", "--engines", "native", "--samples", "2", "--max_new_tokens", "16"]
    for _ in range(2):
        layouts.main([*words, *sizes])
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [(result["case"]["gpus"], result["samples"]) for result in found] == [(1, 16), (2, 32)]
    for result in found:
        assert result["samples"] < result["tokens"] <= 16 * result["samples"]
        assert 0 < result["seconds"] < result["whole_seconds"]
    capsys.readouterr()
    layouts.main([*words, *sizes, "--max_num_seqs", "0"])
    assert "max_num_seqs" in capsys.readouterr().err
