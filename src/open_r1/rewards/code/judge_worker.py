"""Judges programs in a separate process: the module of a worker (`open_r1.rewards.worker`).

A worker judges one program after another, in its own sandboxes. Expected outputs never leave it.
"""

import traceback
from dataclasses import asdict
from functools import cache
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.code import local
from open_r1.rewards.code.cases import StoredCases
from open_r1.rewards.code.isolation import Isolation
from open_r1.rewards.code.judge import Failure, Result, Run, Submission, judge_submission
from open_r1.rewards.code.local import LocalProvider
from open_r1.rewards.code.programs import LANGUAGES, Language, Program
from open_r1.rewards.code.sandbox import Limits, Outcome


def request(task: Submission | Run, isolation: Isolation, sandboxes: int) -> dict[str, Any]:
    """The request to a worker. Concurrent tests get up to `sandboxes` additional sandboxes."""
    language = LANGUAGES[task.program.language]
    return {
        "isolation": asdict(isolation),
        "sandboxes": sandboxes,
        "language": asdict(language),
        "task": asdict(task),
    }


def result(reply: dict[str, Any]) -> Result:
    """The result in a worker's reply to a submission. Raises the errors of `outcome`."""
    fields = _checked(reply)
    return Result(**fields | {"failure": fields["failure"] and Failure(**fields["failure"])})


def outcome(reply: dict[str, Any]) -> Outcome:
    """The outcome in a worker's reply to a run. Raises `UserError`, or `RuntimeError` for a fault of the judge."""
    return Outcome(**_checked(reply))


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if "mistake" in reply:
        raise UserError(reply["mistake"])
    if "fault" in reply:
        raise RuntimeError(f"a process that judges programs failed:\n{reply['fault']}")
    return reply


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """In the worker: a result or an outcome, the message of a `UserError`, or the traceback of another error."""
    try:
        return asdict(_answer(**request))
    except UserError as error:
        return {"mistake": str(error)}
    except Exception:
        return {"fault": traceback.format_exc()}


def _answer(
    isolation: dict[str, Any], sandboxes: int, language: dict[str, Any], task: dict[str, Any]
) -> Result | Outcome:
    LANGUAGES[language["name"]] = Language(**_tuples(language))
    provider = _provider(Isolation(**_tuples(isolation)), sandboxes)
    task |= {"program": Program(**_tuples(task["program"])), "limits": Limits(**task["limits"])}
    if "cases" in task:
        return judge_submission(provider, Submission(**task | {"cases": StoredCases(**task["cases"])}))
    run = Run(**task)
    with provider.open(run.program, run.limits) as start:
        return start(run.stdin)


@cache
def _provider(isolation: Isolation, sandboxes: int) -> LocalProvider:
    local.limit_sandboxes(sandboxes)
    return LocalProvider(isolation)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
