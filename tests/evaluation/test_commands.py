"""`open-r1 evaluate` and `open-r1 compare`, as they are typed."""

import json

import pytest

from open_r1 import evaluate
from open_r1.cli import main
from open_r1.errors import UserError
from open_r1.evaluation.compare import compare


@pytest.fixture
def evaluated(tiny_model, sums, tmp_path):
    def run(name, *options):
        folder = tmp_path / name
        arguments = ["--model", str(tiny_model), "--tasks", str(sums), "--output", str(folder), *options]
        evaluate.main([*arguments, "--max_new_tokens", "8", "--num-samples=2"])
        return folder

    return run


def test_evaluate_writes_and_prints(evaluated, capsys):
    folder = evaluated("a", "--limit", "3")
    results = json.loads((folder / "sums" / "results.json").read_text())
    assert (results["n_problems"], results["num_samples"], results["engine"]) == (3, 2, "transformers")
    assert results["protocol"]["max_new_tokens"] == 8
    out = capsys.readouterr().out
    assert "sums" in out and "3 × 2" in out


def test_compare_pairs_the_problems(evaluated, capsys):
    a, b = evaluated("a"), evaluated("b", "--seed", "1")
    (comparison,) = compare(a, b)
    assert comparison.n_problems == 6
    assert comparison.difference.value == pytest.approx(comparison.b - comparison.a)
    assert comparison.difference.ci95[0] <= comparison.difference.value <= comparison.difference.ci95[1]
    with pytest.raises(SystemExit) as end:
        main(["compare", str(a), str(b)])
    assert end.value.code == 0
    assert "points" in capsys.readouterr().out


def test_compare_refuses_other_problems(evaluated):
    with pytest.raises(UserError, match="did not ask the same problems"):
        compare(evaluated("a"), evaluated("b", "--limit", "3"))


def test_compare_refuses_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match="has no finished benchmark"):
        compare(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "{model}", "--tasks", "aime23"], "there is no task 'aime23'"),
        (["--model", "{empty}", "--tasks", "{sums}"], "the folder has no tokenizer"),
        (["--model", "{model}", "--tasks", "{sums},{sums}"], "names of different tasks"),
        (["--model", "{model}", "--tasks", "{sums}", "--engine", "openai"], "give --base-url"),
        (["--model", "{model}", "--tasks", "aime24", "--data-dir", "{empty}"], r"aime24\.jsonl"),
        (["--model", "m", "--tasks", "{sums}", "--base-url", "http://127.0.0.1:1/v1"], "does not answer"),
    ],
)
def test_bad_input_is_one_sentence(tiny_model, sums, tmp_path, capsys, arguments, expected):
    places = {"model": tiny_model, "sums": sums, "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    with pytest.raises(UserError, match=expected):
        evaluate.main([word.format(**places) for word in [*arguments, "--output", str(tmp_path / "out")]])
