"""Tasks of reasoning-gym: with a small library in its place, and, where it is installed, with the real one."""

import importlib.util
import json
import sys

import pytest
from evaluation.scripted import Scripted, evaluate_task, opened
from runs import arguments, launch, make_folder, metrics

from open_r1 import evaluate
from open_r1.errors import UserError
from open_r1.evaluation import reasoning_gym
from open_r1.evaluation.problems import digest
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.store import SCHEMA, read_samples
from open_r1.evaluation.tasks import find_task, load_problems

LIBRARY = '''
import random, time
from reasoning_gym.factory import DATASETS


class Multiples:
    """Every multiple is right, so no answer is the gold one; words are an error, and some never end."""

    def __init__(self, seed, size):
        self.seed, self.size = seed, size

    def __getitem__(self, index):
        names = sorted({"one", "two", "three"}, key=hash)
        return {"question": f"A multiple of {index + 2} {{{random.random()} {names} {self.seed}}}", "answer": None}

    def score_answer(self, answer, entry):
        while answer == "forever":
            time.sleep(1)
        return 1.0 if int(answer) % int(entry["question"].split()[3]) == 0 else 0.25


class Broken(Multiples):
    def __getitem__(self, index):
        raise KeyError("words.txt")


DATASETS.update(multiples=Multiples, broken=Broken, composite=Broken)


def create_dataset(name, seed, size):
    return DATASETS[name](seed, size)
'''


@pytest.fixture
def fresh():
    """Forgets the library and its workers, before and after."""

    def forget():
        reasoning_gym._pool().close()
        reasoning_gym._pool.cache_clear()
        reasoning_gym._library.cache_clear()

    forget()
    yield forget
    forget()


@pytest.fixture
def library(fresh, tmp_path, monkeypatch):
    """A library of two tasks, where the workers look for it."""
    folder = tmp_path / "library"
    (folder / "reasoning_gym").mkdir(parents=True)
    (folder / "reasoning_gym" / "__init__.py").write_text(LIBRARY)
    (folder / "reasoning_gym" / "factory.py").write_text("DATASETS = {}\n")
    (folder / "reasoning_gym-9.1.dist-info").mkdir()
    (folder / "reasoning_gym-9.1.dist-info" / "METADATA").write_text("Name: reasoning_gym\nVersion: 9.1\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(reasoning_gym, "SECONDS", 3.0)


def test_the_scorer_of_the_task_judges(library, tmp_path):
    task = find_task("reasoning_gym:multiples")
    problems = load_problems(task, limit=3)
    texts = {
        0: ["<think>8?</think>so\n<answer>\n14\n</answer>", "The answer is 3."],
        1: ["<answer>seven</answer>", "<answer>forever</answer>"],
        2: ["<think>is it 4", "<think></think>\\boxed{4}"],
    }
    protocol = protocol_for(task, num_samples=2, max_new_tokens=64)
    results = evaluate_task(task, problems, "m", opened(Scripted(texts)), protocol, tmp_path / "out")
    rows = read_samples(tmp_path / "out")
    assert list(rows[0]) == SCHEMA.names
    assert [row["correct"] for row in rows] == [True, False, None, None, False, True]
    assert [row["extracted"] for row in rows] == ["14", "3", "seven", "forever", None, "4"]
    assert [row["reason"] for row in rows[:2]] == ["reasoning-gym's score is 1", "reasoning-gym's score is 0.25"]
    assert "ValueError: invalid literal" in rows[2]["reason"]
    assert "more than 3 s" in rows[3]["reason"]
    assert results["pass@1"] == pytest.approx(2 / 6)
    assert (results["no_answer"], results["ungradable"]) == pytest.approx((1 / 6, 2 / 6))
    assert (results["protocol"]["reasoning_gym"], results["protocol"]["problem_seed"]) == ("9.1", 0)


def test_problems_are_the_same_in_every_process(library, fresh):
    first = load_problems(find_task("reasoning_gym:multiples"))
    assert len(first) == 50
    assert first[7].prompt.startswith("A multiple of 9 {")
    assert first[7].prompt.endswith("between <answer> and </answer>.")
    fresh()
    assert digest(load_problems(find_task("reasoning_gym:multiples"))) == digest(first)
    assert len(load_problems(find_task("reasoning_gym:multiples"), limit=70)) == 70


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_trainers_ask_them_too(library, tmp_path, processes):
    options = {"benchmarks": "reasoning_gym:multiples", "benchmarks_limit": 3, "benchmarks_max_new_tokens": 6}
    argv = arguments(make_folder(tmp_path), "sft", tmp_path / "out", max_steps=1, **options)
    launch("sft", argv, processes)
    rows = read_samples(tmp_path / "out" / "evaluation" / "reasoning_gym_multiples")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(3) for j in range(4)]
    assert any("eval_reasoning_gym:multiples_pass@1" in line for line in metrics(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reasoning_gym:multiple", "reasoning-gym 9.1 has no task 'multiple'; similar names are multiples."),
        ("reasoning_gym:sudoku", "has no task 'sudoku'; there are broken, multiples."),
        ("reasoning_gym:broken", "cannot create problem 1 .KeyError: 'words.txt'.."),
    ],
)
def test_what_cannot_be_asked_is_said(library, name, expected):
    with pytest.raises(UserError, match=expected):
        load_problems(find_task(name))


def test_without_the_library_the_extra_is_named(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install -e \S*reasoning-gym"):
        find_task("reasoning_gym:leg_counting")


def test_evaluate_takes_the_name(library, tiny_model, tmp_path, capsys):
    options = ["--model", str(tiny_model), "--tasks", "reasoning_gym:multiples", "--output", str(tmp_path / "out")]
    for _ in range(2):  # the second finds everything there
        evaluate.main([*options, "--limit", "2", "--num-samples", "2", "--max-new-tokens", "4"])
    results = json.loads((tmp_path / "out" / "reasoning_gym_multiples" / "results.json").read_text())
    assert (results["task"], results["n_problems"]) == ("reasoning_gym:multiples", 2)
    assert "reasoning_gym:multiples" in capsys.readouterr().out


installed = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra reasoning-gym"
)


@installed
@pytest.mark.parametrize("name", ["leg_counting", "n_queens", "word_sorting", "countdown", "list_functions"])
def test_the_real_library_agrees_with_its_own_answers(fresh, name):
    problems = load_problems(find_task(f"reasoning_gym:{name}"), limit=4)
    judge = problems[0].judge
    right = judge([(p, f"<think>hm</think>It is\n<answer>\n{p.gold}\n</answer>") for p in problems])
    assert [v.correct for v in right] == [True] * 4
    wrong = judge([(p, "<answer>1 2 3</answer>") for p in problems])
    assert not any(v.correct for v in wrong)
    fresh()
    assert digest(load_problems(find_task(f"reasoning_gym:{name}"), limit=4)) == digest(problems)


@installed
def test_another_expression_of_the_same_value_is_right(fresh):
    (problem,) = load_problems(find_task("reasoning_gym:countdown"), limit=1)
    (verdict,) = problem.judge([(problem, f"<answer>({problem.gold})</answer>")])
    assert (verdict.correct, verdict.extracted) == (True, f"({problem.gold})")
