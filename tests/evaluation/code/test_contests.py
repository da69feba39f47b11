"""Codeforces and IOI problems as benchmarks."""

import json
import shutil

import pytest

from open_r1.errors import UserError
from open_r1.evaluation.tasks import find_task, load_problems

CODEFORCES = {
    "id": "1/A",
    "prompt": "Print the sum of two numbers, in Python.",
    "language": "python",
    "rating": 900,
    "time_limit": 1.0,
    "memory_limit": 256.0,
    "input_mode": "stdio",
    "official_tests": [{"input": "1 2", "output": "3"}, {"input": "5 5", "output": "10"}],
    "generated_checker": None,
}
CHECKER = "import sys\nprint(int(open(sys.argv[3]).read().strip() in ('3', 'three', '10')))"
IOI = {
    "id": "add",
    "year": 2024,
    "subtask": "1",
    "problem": "Write int add(int a, int b) in C++.",
    "grader_files": [
        ["add.h", "int add(int a, int b);"],
        [
            "grader.cpp",
            '#include "add.h"\n#include <cstdio>\n'
            'int main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", add(a, b)); }',
        ],
    ],
    "test_names": ["t1", "t2"],
    "test_cases": [{"input": "1 2", "output": "3"}, {"input": "4 4", "output": "8"}],
    "time_limit": 1.0,
    "memory_limit": 512,
}
SUM = "print(sum(map(int, input().split())))"


def load(tmp_path, name, *rows):
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_problems(find_task(name), tmp_path)


def verdict_of(problem, source, after="", language="python"):
    (verdict,) = problem.judge([(problem, f"<think>\nhm\n</think>\n```{language}\n{source}\n```{after}")])
    return verdict


def test_codeforces(tmp_path):
    (problem,) = load(tmp_path, "codeforces", CODEFORCES)
    assert problem.groups == {"language": "python", "rating": "800 to 1199"}
    assert verdict_of(problem, SUM).correct is True
    wrong = verdict_of(problem, "print(3)")
    assert wrong.correct is False
    assert verdict_of(problem, SUM, after="\nFor example:\n```\n3\n```").correct is True
    assert "no fenced code block" in verdict_of(problem, SUM, language="cpp").reason
    assert wrong.reason == "test 2 of 2: wrong answer\nInput:\n5 5\nExpected:\n10\nGot:\n3\n"


def test_codeforces_with_a_checker_of_its_own(tmp_path):
    (problem,) = load(tmp_path, "codeforces", {**CODEFORCES, "generated_checker": CHECKER})
    assert verdict_of(problem, "print('three')").correct is True
    assert verdict_of(problem, "print('four')").correct is False


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_ioi(tmp_path):
    (problem,) = load(tmp_path, "ioi", IOI)
    assert problem.id == "2024-add-1"
    assert verdict_of(problem, "int add(int a, int b) { return a + b; }", language="cpp").correct is True
    wrong = verdict_of(problem, "int add(int a, int b) { return 3; }", language="cpp")
    assert wrong.correct is False
    assert wrong.reason == "test 2 of 2: wrong answer\nInput:\n4 4\nExpected:\n8\nGot:\n3\n"
    assert verdict_of(problem, "int add(", language="cpp").correct is False


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("codeforces", {**CODEFORCES, "official_tests": []}),
        ("codeforces", {**CODEFORCES, "input_mode": "file"}),
        ("codeforces", {**CODEFORCES, "prompt": ""}),
        ("ioi", {**IOI, "test_cases": []}),
        ("ioi", {**IOI, "problem": None}),
    ],
)
def test_a_row_without_tests_or_prompt_is_named(name, row, tmp_path):
    with pytest.raises(UserError, match="row 1, column"):
        load(tmp_path, name, row)


def test_problems_that_only_piston_judges_are_named_before_sampling(tmp_path, monkeypatch):
    row = {**IOI, "grader_files": [*IOI["grader_files"], ["manager.cpp", "int main() {}"]]}
    monkeypatch.delenv("PISTON_ENDPOINTS", raising=False)
    with pytest.raises(UserError, match=r"row 1: problem 'add' has its own manager .* set PISTON_ENDPOINTS"):
        load(tmp_path, "ioi", row)
    monkeypatch.setenv("PISTON_ENDPOINTS", "http://localhost:1")
    assert len(load(tmp_path, "ioi", row)) == 1


def test_ioi_from_the_hub_has_no_tests():
    with pytest.raises(UserError, match="open-r1/ioi has no tests: give --data-dir"):
        load_problems(find_task("ioi"))
