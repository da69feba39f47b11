"""Tasks of reasoning-gym by name, `reasoning_gym:leg_counting`: problems that are generated, and scored by the task.

The library is called only in worker processes (`reasoning_gym_worker.py`): its scorers parse completions with parsers
that may hang, and some of its problems depend on the hash seed of the process that generates them.
"""

import difflib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem, Task, folder_name
from open_r1.installing import install_command
from open_r1.rewards import Verdict, extract_answer
from open_r1.rewards.answers import last_block
from open_r1.rewards.pool import Pool, Reply

PREFIX = "reasoning_gym:"
PROMPT = (
    "{problem}\n\nPlease reason step by step, and put your final answer, and nothing else, between <answer> and "
    "</answer>."
)
SIZE, SEED = 50, 0
"""Problems of a task unless `--limit` asks for another number, and what they are drawn with."""
SECONDS, MEMORY_MB = 20.0, 2048
"""Limit for making or scoring one problem."""


def gym_task(name: str) -> Task:
    """The task of this name. Raises `UserError` with similar names if there is none, or if the library is missing."""
    version, names = _library()
    short = name.removeprefix(PREFIX)
    if short not in names:
        near = difflib.get_close_matches(short, names, n=5) or [known for known in names if short and short in known]
        listed = f"similar names are {', '.join(near)}" if near else f"there are {', '.join(names)}"
        raise UserError(f"tasks: reasoning-gym {version} has no task {short!r}; {listed}.")
    return Task(
        name=name,
        source=None,
        samples=4,
        prompt=PROMPT,
        make=partial(_problems, name),
        recorded={"reasoning_gym": version, "problem_seed": SEED},
    )


def _problems(name: str, limit: int | None) -> list[BenchmarkProblem]:
    short, size = name.removeprefix(PREFIX), limit or SIZE
    place = {"task": short, "seed": SEED, "size": size}
    problems = []
    for index, reply in enumerate(_ask_all([{**place, "index": index} for index in range(size)])):
        if reply.limit or "error" in reply.value:
            raise UserError(f"task {name}: reasoning-gym cannot create problem {index + 1} ({_reason(reply)}).")
        question, gold = reply.value["question"], reply.value["answer"]
        problems.append(
            BenchmarkProblem(
                index=index,
                id=f"{folder_name(name)}-{index:04d}",
                problem=question,
                prompt=PROMPT.format(problem=question),
                gold=gold,
                judge=partial(_judge, short, size),
            )
        )
    return problems


def _judge(name: str, size: int, answers: Sequence[tuple[BenchmarkProblem, str]]) -> list[Verdict]:
    """An answer is right if it gets the task's full score. If the scorer fails, the verdict is undecided."""
    extracted = [_answer(completion) for _, completion in answers]
    given = [i for i, answer in enumerate(extracted) if answer is not None]
    verdicts = [Verdict(False, None, "the completion gives no answer")] * len(answers)
    requests = [
        {"task": name, "seed": SEED, "size": size, "index": answers[i][0].index, "answer": extracted[i]} for i in given
    ]
    for i, reply in zip(given, _ask_all(requests), strict=True):
        if reply.limit or "error" in reply.value:
            verdicts[i] = Verdict(None, extracted[i], f"reasoning-gym's scorer failed: {_reason(reply)}")
        else:
            score = reply.value["score"]
            verdicts[i] = Verdict(score >= 1, extracted[i], f"reasoning-gym's score is {score:g}")
    return verdicts


def _answer(completion: str) -> str | None:
    """The last answer block unchanged, because grids and lists are answers here; else the answer that the rewards
    extract."""
    return last_block(completion) or extract_answer(completion)


@lru_cache(1)
def _library() -> tuple[str, list[str]]:
    """Version of reasoning-gym and its names. Raises `UserError` if it is not installed."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise UserError(
            "tasks: reasoning_gym:... needs the library reasoning-gym, which is not installed: "
            f"{install_command('reasoning-gym')}."
        )
    (reply,) = _ask_all([{}])
    if reply.limit or "error" in reply.value:
        raise UserError(f"reasoning-gym is installed, but cannot be used: {_reason(reply)}.")
    return reply.value["version"], reply.value["names"]


@lru_cache(1)
def _pool() -> Pool:
    return Pool(seconds=SECONDS, memory_mb=MEMORY_MB, module="open_r1.evaluation.reasoning_gym_worker")


def _ask_all(requests: Sequence[dict[str, Any]]) -> list[Reply]:
    pool = _pool()
    return [future.result() for future in [pool.submit(request) for request in requests]]


def _reason(reply: Reply) -> str:
    if reply.limit:
        return {"time": f"more than {SECONDS:g} s", "memory": f"more than {MEMORY_MB} MB"}.get(reply.limit, reply.limit)
    return reply.value["error"]
