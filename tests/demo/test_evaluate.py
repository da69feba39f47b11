import json
import re

import pyarrow.parquet as pq
import pytest

from open_r1.demo.evaluate import evaluate, sample_answers, wilson_interval
from open_r1.demo.sums import SUMS


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Figures of Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_has_published_values(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_answers_are_right_where_their_last_number_is_the_sum(tmp_path):
    problems = SUMS.held_out(32)
    rows = sample_answers(SUMS, SUMS.base, problems, 2, seed=1, folder=tmp_path / "answers")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(32) for j in range(2)]
    for row in rows:
        answer = re.search(r"<answer>\s*(-?\d+)\s*</answer>", row["completion"])
        assert row["correct"] is (answer is not None and answer[1] == problems[row["index"]].gold)
    assert {row["correct"] for row in rows} == {True, False}


def test_evaluation_writes_what_it_counted(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in SUMS.base.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    problems = SUMS.held_out(64)
    score = evaluate(SUMS, model, problems, seed=0)
    rows = pq.read_table(model / "evaluation/sums/samples.parquet").to_pylist()
    assert [row["problem"] for row in rows] == [p.question for p in problems]
    assert score.accuracy == sum(row["correct"] for row in rows) / 64
    assert score.mean_tokens == sum(row["n_tokens"] for row in rows) / 64
    assert score.ci95[0] < score.accuracy < score.ci95[1]
    results = json.loads((model / "evaluation/sums/results.json").read_text())
    assert results["pass@1"] == score.accuracy and tuple(results["ci95"]) == score.ci95
    assert evaluate(SUMS, model, problems, seed=0) == score
