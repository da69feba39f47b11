"""`examples/zero`: the problems, the reward of Countdown, and the tables of finished runs."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from open_r1.errors import UserError
from open_r1.evaluation.results import summarise

FOLDER = Path(__file__).parents[2] / "examples" / "zero"


def load(name):
    spec = importlib.util.spec_from_file_location(f"zero_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


countdown, number, tasks = load("countdown"), load("number"), load("tasks")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (r"so \boxed{3 * (2 + 5)}", 1.0),
        (r"\boxed{3 \times (5 + 2) = 21}", 1.0),
        ("Try 3 * 5 + 2 = 17. Then 3 * (5 + 2) = 21.", 1.0),
        ("3 * (2 + 5) is what I would try; it makes 21", 1.0),
        ("<answer>\n(5 + 2) * 3\n</answer>", 1.0),
        ("3 * (2 + 5) = 21, or else 3 + 18 = 21", 0.0),
        (r"\boxed{(2 + 5) * 3}", 1.0),
        (r"\boxed{21}", 0.0),
        (r"\boxed{3 * 7}", 0.0),
        (r"\boxed{3 * (2 + 5) + 0}", 0.0),
        (r"\boxed{3 * (2 + 5) * 1 * 1}", 0.0),
        (r"\boxed{2 + 3 + 5}", 0.0),
        (r"\boxed{3 / (2 - 2) + 5}", 0.0),
        (r"\boxed{__import__('os').getpid()}", 0.0),
        (r"\boxed{" + "(" * 5000 + "}", 0.0),
        (r"\boxed{9 ** 9 ** 9}", 0.0),
        ("", 0.0),
    ],
)
def test_countdown_takes_every_expression_that_reaches_the_target(text, right):
    messages = [{"role": "assistant", "content": text}]
    assert countdown.countdown([messages, text], [[2, 3, 5]] * 2, [21, 21]) == [right, right]


def test_the_numbers_of_the_last_expression_are_compared_with_the_given_ones():
    texts = ["2 + 3 + 5 = 10", "2 + 3 = 5", "2 + 3 + 5 + 7", "no expression", "2 / 0", "(" * 3000, "9 ** 9 ** 9"]
    assert countdown.numbers_used(texts, [[2, 3, 5]] * 7) == [1.0, 2 / 3, 3 / 4, 0.0, 0.0, 0.0, 0.0]


def test_countdown_divides_exactly():
    assert countdown.solves(r"\boxed{6 / 4 * 2}", [2, 4, 6], 3)
    assert not countdown.solves(r"\boxed{7 / 2}", [2, 7], 3)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (r"so \boxed{12}", 1.0),
        ("7 + 5 = 12", 1.0),
        ("7 + 5 = 12.", 1.0),
        (r"\boxed{7 + 5 = 12}", 1.0),
        (r"\boxed{x = 12}", 1.0),
        ("The final answer is $12$.", 1.0),
        (r"\boxed{12 \text{ letters}}", 1.0),
        (r"\boxed{7 + 5}", 0.0),
        (r"\boxed{7 + 5 = 7 + 5}", 0.0),
        ("The final answer is 7 + 5.", 0.0),
        ("What is 7 + 5?", 0.0),
        (r"\boxed{\frac{24}{2}}", 0.0),
        (r"\boxed{24/2}", 0.0),
        (r"\boxed{13 - 1}", 0.0),
        (r"\boxed{13 \cdot 1}", 0.0),
        (r"\boxed{11, 12}", 0.0),
        (r"\boxed{11 or 12}", 0.0),
        (r"\boxed{12} \boxed{11}", 0.0),
        (r"\boxed{-12}", 0.0),
        (r"\boxed{" + "1" * 6000 + "}", 0.0),
        (r"\boxed{}", 0.0),
        ("", 0.0),
    ],
)
def test_number_asks_for_the_number_itself(text, right):
    messages = [{"role": "assistant", "content": text}]
    assert number.number([messages, text], ["12", "12"]) == [right, right]


def in_any_order(row):
    """What makes two rows the same problem but for the order of its numbers, or of its words."""
    if "numbers" in row:
        return row["target"], *sorted(row["numbers"])
    asked = row["problem"].partition("Think")[0]
    return row["answer"], *sorted(asked.replace("?", " ").replace('"', " ").split())


@pytest.mark.parametrize("task", list(tasks.TASKS))
def test_problems_grow_harder_and_held_out_ones_stay_apart(task):
    train, held_out = tasks.make(task, 600, 60, seed=1)
    levels = tasks.TASKS[task][1]
    assert (len(train), len({row["problem"] for row in held_out})) == (600, 60)
    assert all(sum(row["level"] == level for row in train) > 30 for level in range(1, levels + 1))
    assert not {in_any_order(row) for row in train} & {in_any_order(row) for row in held_out}
    assert {row["level"] for row in train[: int(600 * tasks.RAMP / levels)]} == {1}
    assert {row["level"] for row in train[-600 // levels :]} == set(range(1, levels + 1))
    assert {row["level"] for row in held_out} == set(range(1, levels + 1))
    assert (train, held_out) == tasks.make(task, 600, 60, seed=1) != tasks.make(task, 600, 60, seed=2)


def solved(task, row):
    """Whether the row's answer is right, by another way than the one that made it."""
    question, answer = row["problem"], row["answer"]
    if task == "sums":
        terms = re.findall(r"([+-]?) ?(\d+)", question.partition("?")[0])
        return int(answer) == sum(int(sign + number) for sign, number in terms)
    if task == "largest":
        numbers = [int(n) for n in re.findall(r"\d+", question)]
        return int(answer) in numbers and all(n <= int(answer) for n in numbers)
    if task == "sequences":
        first, second, third, fourth = map(int, re.findall(r"\d+", question))
        return second - first == third - second == fourth - third == int(answer) - fourth
    return countdown.solves(rf"\boxed{{{answer}}}", row["numbers"], row["target"])


@pytest.mark.parametrize("task", list(tasks.TASKS))
def test_answers_are_right(task):
    train, held_out = tasks.make(task, 300, 60, seed=0)
    assert all(solved(task, row) for row in train + held_out)
    if task != "countdown":
        assert all(number.number([rf"\boxed{{{row['answer']}}}"], [row["answer"]]) == [1.0] for row in held_out)
        copied = [row["problem"].partition("?")[0].removeprefix("What is ") for row in held_out]
        boxed = [rf"\boxed{{{text}}}" for text in copied]
        assert not any(number.number(boxed, [row["answer"] for row in held_out]))


def test_more_held_out_problems_than_there_are_is_a_sentence():
    with pytest.raises(UserError, match="level 1 has too few problems"):
        tasks.make("sums", 10, 2000, seed=0)


def write_evaluation(folder, right, tokens):
    """Twelve problems of three levels, two samples each; the first `right` are right."""
    folder.mkdir(parents=True)
    rows = [
        {
            "index": i,
            "id": f"p{i}",
            "problem": f"Problem {i}",
            "prompt": f"Problem {i}",
            "gold": "1",
            "completion": f"answer of {tokens} tokens",
            "sample": s,
            "correct": i < right,
            "extracted": "1",
            "reason": "the reward is 1",
            "seed": 0,
            "n_tokens": tokens,
            "finish_reason": "stop",
        }
        for i in range(12)
        for s in range(2)
    ]
    groups = {i: {"level": str(i % 3 + 1)} for i in range(12)}
    head = {"task": "held_out", "model": "m", "engine": "native", "protocol": {}, "seconds": 1.0, "reported": []}
    (folder / "results.json").write_text(json.dumps(head | summarise(rows, groups=groups)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")


def test_the_tables_the_curves_and_the_completions(tmp_path):
    write_evaluation(tmp_path / "sums" / "base" / "held_out", 0, 100)
    for seed, right in (("1", 9), ("2", 12)):
        run = tmp_path / "sums" / f"seed-{seed}"
        write_evaluation(run / "evaluation" / "held_out", right, 50)
        (run / "run").mkdir()
        (run / "seconds.txt").write_text("40\n20\n")  # two sittings
        lines = [{"step": s, "reward": s / 10} for s in (1, 2)]
        (run / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "largest" / "seed-1" / "run").mkdir(parents=True)  # unfinished
    done = subprocess.run([sys.executable, FOLDER / "results.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "results.md").read_text()
    assert "| sums, seed 1 | 0.0 [" in text and "| +75.0 [" in text and "| 100 to 50 | 2 | 1.0 |" in text
    assert "| sums, seed 2 | 0 to 100 | 0 to 100 | 0 to 100 |" in text
    assert "largest" not in text
    shown = (tmp_path / "completions.md").read_text()
    assert shown.count("answer of 100 tokens") == 12 and shown.count("Trained, right") == 12
    assert "sums, seed 2" in (tmp_path / "curves.svg").read_text()


def test_a_folder_without_a_finished_run_is_a_sentence(tmp_path):
    done = subprocess.run([sys.executable, FOLDER / "results.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and "has no finished run" in done.stderr and "Traceback" not in done.stderr


def run_script(tmp_path, command, **environment):
    """`run.sh` with a stand-in for `open-r1`, which writes its arguments to a file."""
    fake = tmp_path / "bin" / "open-r1"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{tmp_path}/arguments.txt"\n{command}\n')
    fake.chmod(0o755)
    path = os.pathsep.join([str(fake.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | environment | {"PATH": path, "SMOKE": "1"}
    return subprocess.run([FOLDER / "run.sh", "sums", "1"], env=environment, capture_output=True, text=True)


def test_the_script_ends_with_the_sentence_of_a_command_that_failed(tmp_path):
    done = run_script(tmp_path, 'echo "error: no such model" >&2; exit 2', OUT=str(tmp_path / "out"))
    assert done.returncode == 2
    assert set(done.stderr.splitlines()) == {"error: no such model"}


def test_the_script_takes_paths_with_spaces(tmp_path):
    out, model = str(tmp_path / "my runs"), str(tmp_path / "my model")
    run_script(tmp_path, "", OUT=out, MODEL=model)
    arguments = (tmp_path / "arguments.txt").read_text().splitlines()
    assert model in arguments and f"{out}/sums/data/problems.jsonl" in arguments and f"{out}/sums/seed-1" in arguments
