"""Small problem sets in the schemas of the code benchmarks, and answers whose verdicts are known."""

import base64
import json
import pickle
import zlib


def packed(tests, protocol=4):
    """Private tests as LiveCodeBench packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests), protocol))).decode()


def cases(pairs, kind="stdin"):
    return [{"input": given, "output": wanted, "testtype": kind} for given, wanted in pairs]


def row(id, content, public, private, *, kind="stdin", starter="", function=None, **columns):
    return {
        "question_title": id,
        "question_content": content,
        "platform": "atcoder" if function is None else "leetcode",
        "question_id": id,
        "contest_id": "c1",
        "contest_date": "2024-09-14T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases(public, kind)),
        "private_test_cases": packed(cases(private, kind)),
        "metadata": json.dumps({} if function is None else {"func_name": function}),
        **columns,
    }


SUM = row(
    "sum",
    "Read two numbers and print their sum.",
    [("1 2\n", "3\n")],
    [("10 20\n", "30\n"), ("-4 4\n", "0\n")],
)
HALF = row(
    "half",
    "Read a number and print half of it.",
    [("3\n", "1.5\n")],
    [("4\n", "2\n")],
    difficulty="medium",
    contest_date="2025-01-20T00:00:00",
)
PAIRS = row(
    "pairs",
    "Return each number with its square.",
    [("[1, 2]", "[[1, 1], [2, 4]]")],
    [("[]", "[]"), ("[3]", "[[3, 9]]")],
    kind="functional",
    starter="class Solution:\n    def pairs(self, numbers: List[int]) -> List[List[int]]:\n        ",
    function="pairs",
    difficulty="hard",
    contest_date="2025-03-01T00:00:00",
)
ROWS = [SUM, HALF, PAIRS]


def fenced(source, language="python"):
    return f"<think>\nLet me see.\n```python\nprint(0)\n```\n</think>\nHere it is.\n```{language}\n{source}\n```\nDone."


RIGHT_SUM = "print(sum(map(int, input().split())))"
RIGHT_PAIRS = (
    "class Solution:\n    def pairs(self, numbers: List[int]):\n        print('on it')\n"
    "        return [[n, n * n] for n in numbers]"
)
ANSWERS = {
    # name: (row, completion, whether it is right, what the reason says)
    "right": (SUM, fenced(RIGHT_SUM), True, "all tests pass"),
    "another fence": (SUM, fenced(RIGHT_SUM, "py3"), True, "all tests pass"),
    "main guard": (SUM, fenced(f"if __name__ == '__main__':\n    {RIGHT_SUM}"), True, "all tests pass"),
    "leaves by exit": (SUM, fenced(f"{RIGHT_SUM}\nimport sys\nsys.exit(1)"), True, "all tests pass"),
    "modules left out": (
        SUM,
        fenced(
            "d = datetime.date(2024, 1, 1)\na = bisect.bisect([1], 0)\nsetrecursionlimit(10)\n"
            "print(sum(map(int, stdin.readline().split())) + a)"
        ),
        True,
        "all tests pass",
    ),
    "numpy": (SUM, fenced("import numpy as np\nprint(np.array(input().split(), int).sum())"), True, "all tests pass"),
    "global state": (
        SUM,
        fenced(
            "total = 0\ndef add():\n    global total\n    total += sum(map(int, input().split()))\nadd()\nprint(total)"
        ),
        True,
        "all tests pass",
    ),
    "lines of standard input": (
        SUM,
        fenced("import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))"),
        True,
        "all tests pass",
    ),
    "long numbers": (
        SUM,
        fenced("print(int('1' * 9000) * 0 + sum(map(int, input().split())))"),
        True,
        "all tests pass",
    ),
    "imports left out": (SUM, fenced("print(reduce(add, map(int, sys.stdin.read().split())))"), True, "all tests pass"),
    "wrong": (SUM, fenced("a, b = map(int, input().split())\nprint(a - b)"), False, "test 1 of 3: wrong answer"),
    "fails a private test": (SUM, fenced("print(3)"), False, "test 2 of 3: wrong answer"),
    "slow": (SUM, fenced("while True:\n    pass"), False, "test 1 of 3: time limit exceeded"),
    "crashes": (SUM, fenced("print(3)\n1 / 0"), False, "test 1 of 3: runtime error"),
    "no syntax": (SUM, fenced("print(("), False, "test 1 of 3: runtime error"),
    "no program": (SUM, "<think>\n```python\nprint(3)\n```\n</think>\nIt is three.", False, "no fenced code block"),
    "reasoning without end": (SUM, fenced(RIGHT_SUM).replace("</think>", ""), True, "all tests pass"),
    "back quotes in the text": (SUM, fenced(RIGHT_SUM) + "\nCall `sum` as in ```sum([1])```.", False, "runtime error"),
    "leaves early": (SUM, fenced("import os\nos._exit(0)"), False, "test 1 of 3: wrong answer"),
    "reads the tests": (
        SUM,
        fenced("import pathlib\nfor p in pathlib.Path('/').rglob('*.json'):\n    print(p.read_text())\nprint(3)"),
        False,
        "test ",
    ),
    "too many lines": (SUM, fenced(f"{RIGHT_SUM}\nprint(1)"), False, "wrong answer"),
    "numbers written otherwise": (HALF, fenced("print(f'{int(input()) / 2:.3f}')"), True, "all tests pass"),
    "another number": (HALF, fenced("print(int(input()) / 2 + 1e-12)"), False, "wrong answer"),
    "right function": (PAIRS, fenced(RIGHT_PAIRS), True, "all tests pass"),
    "function without class": (PAIRS, fenced("def pairs(ns):\n    return [[n, n * n] for n in ns]"), True, "all tests"),
    "a tuple": (PAIRS, fenced("def pairs(ns):\n    return tuple([n, n * n] for n in ns)"), True, "all tests pass"),
    "tuples in a list": (
        PAIRS,
        fenced("def pairs(ns):\n    return [(n, n * n) for n in ns]"),
        False,
        "wrong answer\nInput:\n[1, 2]\nExpected:\n[[1, 1], [2, 4]]\nGot:\nno value of JSON: [(1, 1), (2, 4)]",
    ),
    "a dictionary": (PAIRS, fenced("def pairs(ns):\n    return {n: n * n for n in ns}"), False, "wrong answer"),
    "wrong function": (PAIRS, fenced(RIGHT_PAIRS.replace("n * n", "n")), False, "test 1 of 3: wrong answer"),
    "no such function": (PAIRS, fenced("def other(ns):\n    return ns"), False, "runtime error"),
    "equal to everything": (
        PAIRS,
        fenced("class Yes(list):\n    def __eq__(self, other):\n        return True\ndef pairs(ns):\n    return Yes()"),
        False,
        "test 1 of 3: wrong answer",
    ),
    "nested too deeply": (
        PAIRS,
        fenced(
            "import os\ndef pairs(ns):\n    for fd in range(3, 20):\n        try:\n"
            "            os.write(fd, b'[' * 200000)\n        except OSError:\n            pass\n    os._exit(0)"
        ),
        False,
        "wrong answer",
    ),
    "prints the answer": (
        PAIRS,
        fenced("def pairs(ns):\n    print([[n, n * n] for n in ns])\n    os._exit(0)\nimport os"),
        False,
        "test 1 of 3: wrong answer",
    ),
}
