"""The benchmarks, each a declaration: the source of its problems, their prompt, DeepSeek's number of samples.

A task's problems come from the hub, or from `<task>.jsonl[.gz]` or `<task>.parquet` in a folder, so that everything
works offline. Any such file with the columns `problem` and `answer` is a task too; so are `reasoning_gym:NAME` and
the versions and windows of LiveCodeBench.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from open_r1.data.opened import BUILDERS, OPENERS, kind_of
from open_r1.errors import UserError, did_you_mean
from open_r1.evaluation.code.contests import codeforces, ioi
from open_r1.evaluation.code.functions import SOURCES, function_task
from open_r1.evaluation.code.livecodebench import is_livecodebench, livecodebench
from open_r1.evaluation.problems import CHOICE, BenchmarkProblem, Source, Task, problem_id
from open_r1.evaluation.reasoning_gym import gym_task
from open_r1.evaluation.reward_judge import judged
from open_r1.evaluation.rows import task_rows
from open_r1.options.columns import ColumnOptions
from open_r1.rewards.accuracy import gold_text
from open_r1.rewards.answers import extract_gold

LETTERS = "ABCD"
PROBLEM_COLUMNS = ("problem", "question", "Question")
ANSWER_COLUMNS = ("answer", "final_answer", "solution")
GPQA_COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
CHOICE_SEED = 0
"""Orders the choices of multiple-choice problems; recorded with the results."""


def _task(name: str, source: Source, samples: int, **options: Any) -> Task:
    return Task(name, source, samples, (name, *options.pop("files", ())), **options)


TASKS = {
    task.name: task
    for task in (
        _task(
            "aime24",
            Source("HuggingFaceH4/aime_2024", "train", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a"),
            64,
        ),
        _task(
            "aime25",
            Source("math-ai/aime25", "test", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b"),
            64,
        ),
        _task(
            "math_500",
            Source("HuggingFaceH4/MATH-500", "test", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
            4,
        ),
        _task(
            "gpqa:diamond",
            Source("Idavidrein/gpqa", "train", "gpqa_diamond"),
            8,
            files=("gpqa_diamond", "gpqa"),
            prompt=CHOICE,
            multiple_choice=True,
            recorded={"choice_seed": CHOICE_SEED},
        ),
        _task(
            "gsm8k",
            Source("openai/gsm8k", "test", "main", "740312add88f781978c0658806c59bc2815b9866"),
            1,
            files=("gsm8k_test",),
        ),
        _task("amc23", Source("math-ai/amc23", "test", revision="80815d37005feb82cd7f8fbc6901d5d3eff43057"), 16),
        _task(
            "olympiadbench",
            Source(
                "Hothan/OlympiadBench",
                "train",
                "OE_TO_maths_en_COMP",
                "91184b52131e7fc9455fef848035173aea8cc01a",
            ),
            4,
        ),
        _task("minerva", Source("math-ai/minervamath", "test"), 4),
        *map(livecodebench, ("lcb", "lcb_v4", "lcb_v5")),
        *map(function_task, SOURCES),
        codeforces(),
        ioi(),
    )
}
ALIASES = {"gpqa": "gpqa:diamond", "gpqa_diamond": "gpqa:diamond", "gsm8k_test": "gsm8k"}


def find_task(name: str) -> Task:
    """The task of this name, or a file as a task. Raises `UserError` with the known names."""
    known = ALIASES.get(name, name)
    if known in TASKS:
        return TASKS[known]
    if name.partition(":")[0] == "reasoning_gym":
        return gym_task(name)
    if is_livecodebench(name) and not is_file(name):
        return livecodebench(name)
    if is_file(name):
        return Task(name=_stem(name), source=None, samples=4, files=(name,))
    raise UserError(
        f"tasks: there is no task {name!r}.{did_you_mean(name, [*TASKS, *ALIASES])} There are: {', '.join(TASKS)}, "
        f"lcb:FROM..TO, reasoning_gym:NAME, or a file ({', '.join(BUILDERS)})."
    )


def with_prompt(task: Task, text: str) -> Task:
    """The task with another instruction: `text` with `{problem}` in it, and `{choices}` where it has some. Raises
    `UserError`."""
    if task.make is not None or task.read is not None:
        raise UserError(f"prompt: task {task.name} has its own wording: remove --prompt or the task.")
    needed = ["{problem}", *(["{choices}"] if task.multiple_choice else [])]
    if missing := [name for name in needed if name not in text]:
        raise UserError(
            f"prompt is {text!r}: expected {' and '.join(missing)} where task {task.name} inserts its own text."
        )
    escaped = text.replace("{", "{{").replace("}", "}}")
    for name in needed:
        escaped = escaped.replace(f"{{{name}}}", name)
    return replace(task, prompt=escaped)


def load_problems(
    task: Task, data_dir: Path | None = None, limit: int | None = None, columns: ColumnOptions | None = None
) -> list[BenchmarkProblem]:
    """The task's problems, the first `limit` of them; `columns` are those of a file. Raises `UserError` with file, row
    and column for bad data."""
    if task.make is not None:
        return task.make(limit)
    if task.source is None and task.read is None:
        from open_r1.data.load import load_split
        from open_r1.evaluation.own_rows import own_problems

        source, own = task.files[0], load_split(task.files[0])
        own = own.select(range(min(limit or len(own), len(own))))
        rows, problems = cast(Sequence[Mapping[str, Any]], own), own_problems(task, own, columns or ColumnOptions())
    else:
        source, rows = task_rows(task, data_dir)
        if task.read is not None:
            problems = list(islice(task.read(rows, source), limit))
        else:
            numbered = enumerate(islice(rows, limit))
            problems = [make_problem(task, row, index, f"{source}, row {index + 1}") for index, row in numbered]
    if task.reward is not None:
        problems = judged(problems, rows, task.reward)
    seen: dict[str, int] = {}
    for problem in problems:
        if problem.id in seen:
            raise UserError(
                f"{source}, row {problem.index + 1}: the id {problem.id!r} is also that of row "
                f"{seen[problem.id] + 1}; ids must be distinct."
            )
        seen[problem.id] = problem.index
    return problems


def make_problem(task: Task, row: Mapping[str, Any], index: int, where: str) -> BenchmarkProblem:
    """Row `index` of the task's data as a problem. Raises `UserError` with `where`."""
    return (_choice_problem if task.multiple_choice else _problem)(task, row, index, where)


def _problem(task: Task, row: Mapping[str, Any], index: int, where: str) -> BenchmarkProblem:
    problem = _cell(row, PROBLEM_COLUMNS, where)
    gold = extract_gold(_cell(row, ANSWER_COLUMNS, where))
    return BenchmarkProblem(index, problem_id(task, row, index), problem, task.prompt.format(problem=problem), gold)


def _choice_problem(task: Task, row: Mapping[str, Any], index: int, where: str) -> BenchmarkProblem:
    problem = _cell(row, PROBLEM_COLUMNS, where)
    choices = [_cell(row, (column,), where) for column in GPQA_COLUMNS]
    order = random.Random(f"{CHOICE_SEED}/{index}").sample(range(len(choices)), len(choices))
    listed = "\n".join(f"{letter}) {choices[i]}" for letter, i in zip(LETTERS, order, strict=True))
    prompt = task.prompt.format(problem=problem, choices=listed)
    return BenchmarkProblem(
        index, problem_id(task, row, index), f"{problem}\n\n{listed}", prompt, LETTERS[order.index(0)]
    )


def _cell(row: Mapping[str, Any], columns: Sequence[str], where: str) -> str:
    column = next((name for name in columns if name in row), None)
    if column is None:
        raise UserError(f"{where}: there is no column {' or '.join(columns)}; there are {', '.join(row)}.")
    text = gold_text(row[column])
    if not text:
        raise UserError(f"{where}, column {column}: it is empty, but every problem needs a question and an answer.")
    return text


def is_file(name: str) -> bool:
    """Whether a task is named by a file of problems."""
    return kind_of(Path(name)) in BUILDERS


def _stem(name: str) -> str:
    path = Path(name)
    return Path(path.stem).stem if path.suffix in OPENERS else path.stem
