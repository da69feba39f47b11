"""The script that judges reference solutions."""

import importlib.util
import json
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "judge_references.py"
ROWS = [
    {
        "task_id": 1,
        "prompt": "Add.",
        "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3"],
    },
    {"task_id": 2, "prompt": "Double.", "code": "def double(a):\n    return a", "test_list": ["assert double(2) == 4"]},
]


def test_references_that_fail_their_own_tests_are_named(tmp_path, capsys):
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    spec = importlib.util.spec_from_file_location("judge_references", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["mbpp", "--data-dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2: the reference solution does not pass the tests of its own row")
    assert lines[1] == "1 of 2 reference solutions are right"
