"""A benchmark whose answers a reward judges: `open-r1 evaluate --reward path/to/file.py:my_reward`.

This is for problems with many solutions, which no gold answer can decide: an expression that reaches a number, a plan,
a grid.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem, Task
from open_r1.rewards import Verdict, extract_answer, get_reward_func, score
from open_r1.rewards.registry import RewardFunc

LEVEL = "level"
"""Column that scores are split by."""


def with_reward(task: Task, name: str) -> Task:
    """The task, judged by the reward `name`. Raises `UserError` for a task that judges its answers itself, and for a
    name that leads nowhere."""
    if task.make is not None or task.read is not None:
        raise UserError(f"reward: task {task.name} has its own judge: remove --reward or the task.")
    get_reward_func(name)
    return replace(task, reward=name, recorded={**task.recorded, "reward": name})


def judged(
    problems: Iterable[BenchmarkProblem], rows: Sequence[Mapping[str, Any]], name: str
) -> list[BenchmarkProblem]:
    """The problems, judged by the reward `name`: right is a reward of 1 or more. The reward gets the columns of `rows`,
    from which the problems were read."""
    judge = partial(_judge, get_reward_func(name), rows)
    return [replace(problem, judge=judge, groups=_groups(rows[problem.index])) for problem in problems]


def _groups(row: Mapping[str, Any]) -> dict[str, str]:
    return {LEVEL: str(row[LEVEL])} if row.get(LEVEL) not in (None, "") else {}


def _judge(
    reward: RewardFunc, rows: Sequence[Mapping[str, Any]], answers: Sequence[tuple[BenchmarkProblem, str]]
) -> list[Verdict]:
    columns = {name: [rows[problem.index].get(name) for problem, _ in answers] for name in rows[0]}
    prompts = [_messages(problem) for problem, _ in answers]
    texts = [text for _, text in answers]
    scores = score([reward], prompts=prompts, completions=texts, columns=columns, names=["reward"])
    return [_verdict(row["reward"], text) for row, text in zip(scores, texts, strict=True)]


def _messages(problem: BenchmarkProblem) -> list[dict[str, Any]]:
    return problem.conversation.messages if problem.conversation else [{"role": "user", "content": problem.prompt}]


def _verdict(value: float | None, text: str) -> Verdict:
    if value is None:
        return Verdict(None, extract_answer(text), "the reward does not apply")
    return Verdict(value >= 1, extract_answer(text), f"the reward is {value:g}")
