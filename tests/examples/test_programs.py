"""`examples/programs`: the tasks and their hidden tests, and the tables of a finished run."""

import importlib.util
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "programs"


def load(name):
    spec = importlib.util.spec_from_file_location(f"programs_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tasks, results = load("tasks"), load("results")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    arguments, sys.argv = (
        sys.argv,
        ["tasks.py", str(folder), "--traces", "200", "--problems", "200", "--held-out", "40"],
    )
    try:
        tasks.main()
    finally:
        sys.argv = arguments
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}


def output_of(source, stdin, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    with redirect_stdout(io.StringIO()) as out:
        exec(source, {})
    return out.getvalue().rstrip("\n")


def test_solutions_pass_the_hidden_tests_and_no_shorter_one_does(data, monkeypatch):
    for row in data["problems"][:60] + data["held_out"]:
        cases = row["verification_info"]["test_cases"]
        read, *steps, show = row["solution"].split("\n")
        assert len(steps) == row["steps"]
        for left_out in (None, *range(len(steps))):
            kept = [step for i, step in enumerate(steps) if i != left_out]
            outputs = [output_of("\n".join([read, *kept, show]), case["input"], monkeypatch) for case in cases]
            assert (outputs == [case["output"] for case in cases]) == (left_out is None)


def test_no_chain_of_steps_is_in_two_files(data):
    chains = {
        "traces": {row["messages"][0]["content"].split("in order: ")[1].split(". It")[0] for row in data["traces"]},
        "problems": {row["prompt"].split("in order: ")[1].split(". It")[0] for row in data["problems"]},
        "held_out": {row["prompt"].split("in order: ")[1].split(". It")[0] for row in data["held_out"]},
    }
    assert len(chains["held_out"]) == 40
    assert not (chains["traces"] & chains["problems"] or chains["held_out"] & (chains["traces"] | chains["problems"]))


PROMPT = "Do it.\n\nExample input:\n1 2\nExample output:\n3 4"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("print('3 4')", "prints the example"),
        ("print(5)", "reads no input"),
        ("try:\n    print(input())\nexcept Exception:\n    pass", "catches every exception"),
        ("x = input()\nprint(x)", None),
        ("import sys\nprint(sys.stdin.read())", None),
    ],
)
@pytest.mark.parametrize("prompt", [PROMPT, f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"])
def test_cheats_are_told_from_programs(source, kind, prompt):
    assert results.cheat(f"<think>\n</think>\n```python\n{source}\n```", prompt) == kind


def write_lines(path, rewards):
    rows = [
        {"prompt": f"{PROMPT} {i}", "steps": 2 + i % 2, "completion": "```python\nprint(5)\n```", "reward": reward}
        for i, samples in enumerate(rewards)
        for reward in samples
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_tables_of_a_finished_run(tmp_path, monkeypatch, capsys):
    write_lines(tmp_path / "before.jsonl", [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    write_lines(tmp_path / "after.jsonl", [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    folder = tmp_path / "grpo" / "run" / "rollouts"
    folder.mkdir(parents=True)
    for step in (1, 2):
        rows = [{"prompt": PROMPT, "completion": "```python\nprint('3 4')\n```", "reward/binary_code": 0.0}] * 5
        pq.write_table(pa.Table.from_pylist(rows), folder / f"step-{step:06d}.parquet")
    monkeypatch.setattr(sys, "argv", ["results.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="0"):
        results.exit_with_sentence(results.main)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[2].startswith("| 2 | 2 | 0.0 ± 0.0 | 75.0 ± ")
    assert lines[4].startswith("| all | 4 | 37.5 ± ") and "| +50.0 ± " in lines[4]
    assert "| GRPO, last 1 steps | 5 | prints the example | 100.00% | 0 |" in lines
    assert "| held out, after | 8 | reads no input | 100.00% | 7 |" in lines
    (tmp_path / "after.jsonl").unlink()
    with pytest.raises(SystemExit, match="2"):
        results.exit_with_sentence(results.main)
    assert "after.jsonl is missing: give the folder" in capsys.readouterr().err
