"""HumanEval and MBPP: verdicts of functions whose scores are known, the cheating ones included."""

import json

import pytest

from open_r1.errors import UserError
from open_r1.evaluation.tasks import find_task, load_problems

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\n\n\ndef shift(x: int) -> int:\n    return x + 1\n\n\n"
    'def mean(numbers: List[float]) -> float:\n    """The mean."""\n',
    "canonical_solution": "    return sum(numbers) / len(numbers)\n",
    "entry_point": "mean",
    "test": "def check(candidate):\n    assert abs(candidate([1.0, 2.0]) - 1.5) < 1e-6\n"
    "    assert candidate([shift(1)]) == 2\n",
}
MBPP = {
    "task_id": 2,
    "prompt": "Write a function to find the shared elements of two tuples.",
    "code": "def helper(a):\n    return set(a)\ndef shared(a, b):\n    return tuple(helper(a) & helper(b))",
    "test_imports": ["import math"],
    "test_list": [
        "assert set(shared((3, 4, 5), (5, 7, 4))) == set((4, 5))",
        "assert shared((math.floor(1.5),), (1,)) == (1,)",
    ],
}
TOO_CLEVER = (
    "class Yes(tuple):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
    "def shared(a, b):\n    return Yes()"
)
REPLY = (
    "import os\ndef shared(a, b):\n    for fd in range(3, 20):\n        try:\n"
    "            os.write(fd, b'[[5], 7]')\n        except OSError:\n            pass\n    os._exit(0)"
)
PROGRAMS = {
    "right": (HUMANEVAL, "def mean(numbers: List[float]):\n    return shift(sum(numbers) / len(numbers)) - 1", True),
    "wrong": (HUMANEVAL, "def mean(numbers):\n    return max(numbers)", False),
    "raises": (HUMANEVAL, "def mean(numbers):\n    raise ValueError", False),
    "slow": (HUMANEVAL, "def mean(numbers):\n    while True:\n        pass", False),
    "leaves with success": (HUMANEVAL, "def mean(numbers):\n    import os\n    os._exit(0)", False),
    "exits": (HUMANEVAL, "raise SystemExit(0)", False),
    "no such function": (HUMANEVAL, "def other(numbers):\n    return 1.5", False),
    "replaces the judge": (
        HUMANEVAL,
        "import json, sys\nsys.modules['__main__'].pack = lambda value: 1.5\ndef mean(numbers):\n    return 1.5",
        False,
    ),
    "writes its own reply": (MBPP, REPLY, False),
    "replies to one call of two": (MBPP, REPLY.replace("[[5], 7]", '[[["tuple", [4, 5]]]]'), False),
    "right set": (MBPP, "def shared(a, b):\n    return tuple(x for x in a if x in b)", True),
    "wrong set": (MBPP, "def shared(a, b):\n    return a", False),
    "equal to everything": (MBPP, TOO_CLEVER, False),
    "prints": (MBPP, "print('null')\ndef shared(a, b):\n    print('null')\n    return ()", False),
}


def load(tmp_path, name, *rows):
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_problems(find_task(name), tmp_path)


@pytest.mark.parametrize("plus", ["", "_plus"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_function_gets_the_verdict_it_deserves(name, plus, tmp_path):
    if plus and name not in ("right", "right set", "wrong set"):
        pytest.skip("the plus versions are judged in the same way")
    row, source, right = PROGRAMS[name]
    if plus and row is MBPP:
        row = {**MBPP, "test": "\n".join(MBPP["test_list"])}
    (problem,) = load(tmp_path, ("humaneval" if row is HUMANEVAL else "mbpp") + plus, row)
    (verdict,) = problem.judge([(problem, f"```python\n{source}\n```")])
    assert verdict.correct is right, verdict.reason


def test_a_failure_shows_call_asserts_and_result(tmp_path):
    (problem,) = load(tmp_path, "mbpp", MBPP)
    (verdict,) = problem.judge([(problem, "```python\ndef shared(a, b):\n    return a\n```")])
    assert verdict.reason.startswith("call 1 of 2: wrong answer\nInput:\nshared((3, 4, 5), (5, 7, 4))\nExpected:\n")
    assert verdict.reason.endswith("Got:\n(3, 4, 5)")
    assert "assert set(shared" in verdict.reason


def test_what_is_asked(tmp_path):
    assert "Call the function shared." in load(tmp_path, "mbpp", MBPP)[0].prompt
    (problem,) = load(tmp_path, "humaneval", HUMANEVAL)
    assert HUMANEVAL["prompt"] in problem.prompt
    assert problem.problem.startswith("def mean(")


@pytest.mark.parametrize("change", [{"test_list": []}, {"code": "def ("}, {"code": "x = 1"}, {"prompt": ""}])
def test_a_broken_row_is_named(change, tmp_path):
    with pytest.raises(UserError, match="row 1, column"):
        load(tmp_path, "mbpp", {**MBPP, **change})


def test_a_reference_that_fails_its_own_tests_decides_nothing(tmp_path):
    (problem,) = load(tmp_path, "mbpp", {**MBPP, "code": "def shared(a, b):\n    return a"})
    (verdict,) = problem.judge([(problem, "```python\nx = 1\n```")])
    assert verdict.correct is None
    assert "the reference solution does not pass" in verdict.reason


def mbpp(code, *asserts, **columns):
    return {"task_id": 3, "prompt": "Write it.", "code": code, "test_list": list(asserts), **columns}


TREE = "class Node:\n    def __init__(self, left=None):\n        self.left = left\n"
DEPTH = "def depth(node):\n    return 0 if node is None else 1 + depth(node.left)"
REFERENCES = {
    "recursion": mbpp(
        "def fact(n):\n    return n * fact(n - 1) if n else 1", "assert fact(5) == 120", "assert fact(3) == 6"
    ),
    "a function called check": mbpp("def check(n):\n    return n > 0", "assert check(1)", "assert not check(-1)"),
    "a class of its own": mbpp(TREE + DEPTH, "assert depth(root) == 2", test_setup_code="root = Node(Node())"),
    "a type": mbpp(
        "def only(row, kind):\n    return [x for x in row if type(x) == kind]", "assert only([1, 'a'], int) == [1]"
    ),
    "a random number": mbpp(
        "import random\ndef pick(row):\n    return row[0] if random.random() < 2 else 0",
        "import random\nfor _ in range(9):\n    n = random.random()\n    assert pick([n]) == n",
    ),
    "a match": mbpp(
        "import re\ndef found(text):\n    return re.match('a', text)", "assert found('ab')", "assert found('b') is None"
    ),
    "an iterator": mbpp("def double(row):\n    return map(lambda x: 2 * x, row)", "assert list(double([1])) == [2]"),
    "a range": mbpp("def upto(n):\n    return range(n)", "assert upto(3) == range(3)"),
    "a long number": mbpp("def power(n):\n    return 10 ** n", "assert power(9000) == 10 ** 9000"),
    "a subclass": mbpp(
        "from collections import Counter\ndef count(text):\n    return Counter(text)",
        "assert count('aab') == {'a': 2, 'b': 1}",
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_passes_its_own_tests(name, tmp_path):
    row = REFERENCES[name]
    (problem,) = load(tmp_path, "mbpp", row)
    wrong = f"def {problem.tests.function}(*args):\n    return None"
    right, other = problem.judge([(problem, f"```python\n{source}\n```") for source in (row["code"], wrong)])
    assert right.correct is True, right.reason
    assert other.correct is False


def test_a_program_gets_the_classes_whose_objects_are_passed(tmp_path):
    (problem,) = load(tmp_path, "mbpp", REFERENCES["a class of its own"])
    (verdict,) = problem.judge([(problem, f"```python\n{DEPTH}\n```")])
    assert verdict.correct is True, verdict.reason


def test_the_tests_of_plus_versions_may_use_numpy(tmp_path):
    test = "import numpy as np\nfor inp in [[[1.0, 2.0]]]:\n    assert np.allclose(mean(*inp), 1.5, atol=1e-6)"
    row = mbpp("def mean(row):\n    return sum(row) / len(row)", "assert mean([1.0]) == 1.0", test=test)
    (problem,) = load(tmp_path, "mbpp_plus", row)
    sources = ["import numpy as np\ndef mean(row):\n    return np.mean(row)", "def mean(row):\n    return 1.4"]
    right, wrong = problem.judge([(problem, f"```python\n{source}\n```") for source in sources])
    assert right.correct is True, right.reason
    assert wrong.correct is False


def test_without_numpy_the_plus_versions_are_refused_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr("open_r1.evaluation.code.harness.numpy_folders", lambda: None)
    with pytest.raises(UserError, match="task mbpp_plus: its tests need numpy"):
        load(tmp_path, "mbpp_plus", MBPP)


def test_a_value_that_cannot_be_passed_on_equals_nothing(tmp_path):
    (problem,) = load(tmp_path, "mbpp", REFERENCES["a range"])
    source = "class Yes:\n    def __eq__(self, other):\n        return True\ndef upto(n):\n    return Yes()"
    (verdict,) = problem.judge([(problem, f"```python\n{source}\n```")])
    assert verdict.correct is False
