"""LiveCodeBench: rows, windows and verdicts of programs whose scores are known."""

import json
from concurrent.futures import Future
from pathlib import Path

import pytest
from evaluation.code.programs import ANSWERS, HALF, PAIRS, ROWS, SUM, packed
from evaluation.scripted import Scripted, evaluate_task, opened

from open_r1.errors import UserError
from open_r1.evaluation.protocol import Protocol, protocol_for
from open_r1.evaluation.store import read_samples
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.rewards.code.queue import JudgingQueue
from open_r1.rewards.pool import Reply


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "lcb.jsonl", ROWS)
    return folder


def write(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ANSWERS)
def test_a_program_gets_the_verdict_it_deserves(name, tmp_path):
    row, completion, right, reason = ANSWERS[name]
    write(tmp_path / "lcb.jsonl", [row])
    (problem,) = load_problems(find_task("lcb"), tmp_path)
    (verdict,) = problem.judge([(problem, completion)])
    assert verdict.correct is right
    assert reason in verdict.reason


def test_a_failure_shows_input_expected_and_got(data_dir):
    problem = load_problems(find_task("lcb"), data_dir)[0]
    (verdict,) = problem.judge([(problem, "```python\nprint(7)\n```")])
    assert verdict.extracted == "print(7)"
    assert verdict.reason == "test 1 of 3: wrong answer\nInput:\n1 2\n\nExpected:\n3\n\nGot:\n7\n"


@pytest.mark.parametrize("number", [0, 2])
def test_a_program_whose_judging_process_ends_is_not_right(number, data_dir, monkeypatch):
    def ends(queue, *asked, **options):
        future = Future()
        future.set_result(Reply(limit="crash"))
        return future

    problem = load_problems(find_task("lcb"), data_dir)[number]
    monkeypatch.setattr(JudgingQueue, "_ask", ends)
    (verdict,) = problem.judge([(problem, f"```python\n{SUM}\n```")])
    assert verdict.correct is False and "ended the process" in verdict.reason


def test_what_is_asked(data_dir):
    problems = load_problems(find_task("lcb"), data_dir)
    assert "standard input" in problems[0].prompt
    assert PAIRS["starter_code"] in problems[2].prompt
    assert [problem.groups for problem in problems] == [
        {"difficulty": "easy", "platform": "atcoder"},
        {"difficulty": "medium", "platform": "atcoder"},
        {"difficulty": "hard", "platform": "leetcode"},
    ]


def test_sixteen_samples_by_default():
    assert protocol_for(find_task("lcb")).num_samples == 16


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("lcb:2024-08..2025-01", ["sum", "half"]),
        ("lcb:2025-01-20..2025-01-20", ["half"]),
        ("lcb:2025-01-21..2025-12", ["pairs"]),
    ],
)
def test_a_window_chooses_contests_both_ends_included(name, ids, data_dir):
    assert [problem.id for problem in load_problems(find_task(name), data_dir)] == ids


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("lcb", ["test4.jsonl", "test5.jsonl"]),
        ("lcb_v1", ["test.jsonl"]),
        ("lcb_v4", ["test4.jsonl"]),
        ("lcb_release_v3", ["test.jsonl", "test2.jsonl", "test3.jsonl"]),
    ],
)
def test_a_version_is_made_of_the_dataset_s_files(name, files, tmp_path):
    for number, file in enumerate(files):
        write(tmp_path / file, [{**SUM, "question_id": f"q{number}"}])
    assert list(find_task(name).source.data_files) == files
    assert len(load_problems(find_task(name), tmp_path)) == len(files)


@pytest.mark.parametrize(
    "name", ["lcb_v0", "lcb_v7", "lcb:2024", "lcb:2024-13..2025-01", "lcb:2025-01..2024-01", "lcb_4", "lcb:a..b"]
)
def test_a_wrong_name_is_one_sentence(name):
    with pytest.raises(UserError, match="tasks: "):
        find_task(name)


def test_an_empty_window_is_said(data_dir):
    with pytest.raises(UserError, match="no problem of a contest in this window"):
        load_problems(find_task("lcb:2020-01..2020-02"), data_dir)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("private_test_cases", "not base64!"),
        ("private_test_cases", packed([{"input": "1"}])),
        ("public_test_cases", "[1]"),
        ("public_test_cases", ""),
        ("metadata", "[]"),
        ("metadata", '{"func_name": "f(); import os"}'),
        ("question_content", None),
    ],
)
def test_a_broken_row_is_named(column, value, tmp_path):
    write(tmp_path / "lcb.jsonl", [SUM, {**SUM, "question_id": "two", column: value}])
    with pytest.raises(UserError, match=rf"row 2, column .*{column}"):
        load_problems(find_task("lcb"), tmp_path)


def test_a_whole_benchmark_with_its_groups(data_dir, tmp_path):
    task = find_task("lcb")
    problems = load_problems(task, data_dir)
    texts = {
        0: [ANSWERS["right"][1], ANSWERS["wrong"][1]],
        1: [ANSWERS["numbers written otherwise"][1]] * 2,
        2: [ANSWERS["wrong function"][1]] * 2,
    }
    protocol = Protocol("deepseek", 2, 0.6, 0.95, 100)
    results = evaluate_task(task, problems, "m", opened(Scripted(texts)), protocol, tmp_path / "out")
    assert results["pass@1"] == pytest.approx(0.5)
    assert results["by"]["difficulty"]["easy"]["pass@1"] == 0.5
    assert results["by"]["difficulty"]["medium"]["n_problems"] == 1
    assert results["by"]["platform"]["atcoder"]["pass@1"] == 0.75
    assert results["by"]["platform"]["leetcode"]["pass@1"] == 0
    assert results["cons@k"] == {}
    rows = read_samples(tmp_path / "out")
    assert [row["correct"] for row in rows] == [True, False, True, True, False, False]
    assert "Expected:\n3" in rows[1]["reason"]


def test_long_tests_are_read_when_a_program_needs_them(tmp_path, monkeypatch):
    monkeypatch.setattr("open_r1.evaluation.code.livecodebench.CHECKED", 10)
    write(tmp_path / "lcb.jsonl", [HALF, {**SUM, "private_test_cases": packed([{"input": "1"}])}])
    half, broken = load_problems(find_task("lcb"), tmp_path)
    (verdict,) = broken.judge([(broken, ANSWERS["right"][1])])
    assert verdict.correct is None
    assert "private_test_cases" in verdict.reason
    (verdict,) = half.judge([(half, ANSWERS["numbers written otherwise"][1])])
    assert verdict.correct is True


def test_a_limit_reads_no_more_rows_than_it_needs(tmp_path):
    (tmp_path / "lcb.jsonl").write_text(json.dumps(SUM) + "\nno JSON\n")
    assert len(load_problems(find_task("lcb"), tmp_path, limit=1)) == 1
