"""Judges programs in a process beside the trainer: the module of a worker (`open_r1.rewards.worker`).

A worker judges one program after another, in sandboxes of its own. What is expected stays in it.
"""

import traceback
from dataclasses import asdict
from functools import cache
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code import local
from open_r1.rewards.code.isolation import Isolation
from open_r1.rewards.code.judge import Case, Result, Task, judge_task
from open_r1.rewards.code.local import LocalProvider
from open_r1.rewards.code.programs import LANGUAGES, Language, Program
from open_r1.rewards.code.sandbox import Limits


def request(task: Task, isolation: Isolation, sandboxes: int) -> dict[str, Any]:
    """What a worker is asked. It runs tests that run at once in up to `sandboxes` more than one."""
    return {
        "isolation": asdict(isolation),
        "sandboxes": sandboxes,
        "language": asdict(LANGUAGES[task.program.language]),
        "program": asdict(task.program),
        "tests": [(test.input, test.output) for test in task.tests],
        "limits": asdict(task.limits),
        "options": {
            "stop_at_failure": task.stop_at_failure,
            "batch_size": task.batch_size,
            "checker": task.checker,
        },
    }


def result(reply: dict[str, Any]) -> Result:
    """What a worker answered. Raises `UserError`, and `RuntimeError` for a fault of the judge."""
    if "mistake" in reply:
        raise UserError(reply["mistake"])
    if "fault" in reply:
        raise RuntimeError(f"a process that judges programs failed:\n{reply['fault']}")
    return Result(**reply)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """In the worker: a result, the message of a `UserError`, or the traceback of another error."""
    try:
        return asdict(_judge(request))
    except UserError as error:
        return {"mistake": str(error)}
    except Exception:
        return {"fault": traceback.format_exc()}


def _judge(request: dict[str, Any]) -> Result:
    language = Language(**_tuples(request["language"]))
    LANGUAGES[language.name] = language
    task = Task(
        Program(**_tuples(request["program"])),
        [Case(*test) for test in request["tests"]],
        Limits(**request["limits"]),
        **request["options"],
    )
    return judge_task(_provider(Isolation(**_tuples(request["isolation"])), request["sandboxes"]), task)


@cache
def _provider(isolation: Isolation, sandboxes: int) -> LocalProvider:
    local.limit_sandboxes(sandboxes)
    return LocalProvider(isolation=isolation)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
