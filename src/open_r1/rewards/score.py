"""Calls reward functions on a batch of completions, and reports which one failed on which row."""

import asyncio
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards.text import check_completion, prefill_of


class RewardError(UserError):
    """A reward function raised, or returned something that is not a list of scores.

    Attributes:
        reward: Name of the reward.
        row: First row of the batch on which it fails; None if it fails only on the whole batch.
        step: The training step; None outside training.
    """

    def __init__(self, message: str, reward: str, row: int | None, step: int | None) -> None:
        super().__init__(message)
        self.reward, self.row, self.step = reward, row, step


def reward_name(function: Callable) -> str:
    """`__name__` of a reward function, of the class of a callable object, or of the function in a `partial`."""
    if isinstance(function, partial) and not hasattr(function, "__name__"):
        return reward_name(function.func)
    return getattr(function, "__name__", None) or type(function).__name__


def score(
    funcs: Sequence[Callable],
    *,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[list[int]] | None = None,
    columns: dict[str, list] | None = None,
    prompt_texts: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    step: int | None = None,
    extras: dict[str, Any] | None = None,
) -> list[dict[str, float | None]]:
    """Scores every completion with every reward.

    A function gets the keyword arguments that it accepts. Coroutines are awaited.

    Args:
        funcs: The reward functions.
        prompts: The prompt of each completion, as in the dataset (text or messages).
        completions: The completions, as text or messages. If the prompt is a list of messages, text is passed on as
            one assistant message.
        completion_ids: Token ids of each completion.
        columns: The dataset's other columns: a list with one value per completion each.
        prompt_texts: The prompts after the chat template. They may end with the beginning of the completion, such as
            `<think>`.
        names: Names of the rewards. Default: those of the functions.
        step: Training step, for error messages.
        extras: More arguments for all functions, passed on unchanged (`trainer_state`).

    Returns:
        For each completion, the score of each reward by name. None if a reward does not apply (or returned NaN).

    Raises:
        RewardError: A function failed, or returned something else. The message names reward, step and row.
    """
    rows = len(completions)
    names = list(names) if names is not None else [reward_name(function) for function in funcs]
    arguments: dict[str, list] = {
        **(columns or {}),
        "prompts": list(prompts),
        "completions": [_completion(r, p, c) for r, (p, c) in enumerate(zip(prompts, completions, strict=True))],
        "completion_ids": list(completion_ids) if completion_ids is not None else [None] * rows,
        "prefills": [prefill_of(p) for p in (prompt_texts if prompt_texts is not None else prompts)],
    }
    for column, values in arguments.items():
        if len(values) != rows:
            raise UserError(f"rewards: column {column!r} has {len(values)} values for {rows} completions.")
    scores: list[dict[str, float | None]] = [{} for _ in range(rows)]
    for name, function in zip(names, funcs, strict=True):
        values = _checked(_run(function, name, arguments, extras or {}, step), name, step)
        for row, value in zip(scores, values, strict=True):
            row[name] = value
    return scores


def _completion(row: int, prompt: Any, completion: Any) -> Any:
    """Text stays text after a text prompt, and becomes an assistant message after messages (as in TRL)."""
    check_completion(row, completion)
    if not isinstance(completion, str):
        return list(completion)
    return completion if isinstance(prompt, str) else [{"role": "assistant", "content": completion}]


def _run(function: Callable, name: str, arguments: dict[str, list], extras: dict[str, Any], step: int | None) -> list:
    where = "" if step is None else f" at step {step}"
    try:
        _check_signature(function, {*arguments, *extras})
        bound = partial(function, **_accepted(function, extras))
        return _call(bound, arguments)
    except UserError as error:
        raise RewardError(f"reward {name!r}{where}: {error}", name, getattr(error, "row", None), step) from error
    except Exception as error:
        row, error = _first_failing_row(bound, arguments, error)
        on = "on the batch as a whole" if row is None else f"on row {row}"
        message = f"reward {name!r} failed{where} {on}: {type(error).__name__}: {error}"
        raise RewardError(message, name, row, step) from error


def _first_failing_row(
    function: Callable, arguments: dict[str, list], error: Exception
) -> tuple[int | None, Exception]:
    for row in range(len(arguments["completions"])):
        try:
            _call(function, {key: [values[row]] for key, values in arguments.items()})
        except Exception as row_error:
            return row, row_error
    return None, error


def _call(function: Callable, arguments: dict[str, list]) -> list:
    result = function(**_accepted(function, arguments))
    values = _wait(result) if inspect.isawaitable(result) else result
    rows = len(arguments["completions"])
    if isinstance(values, (str, dict)) or not hasattr(values, "__iter__"):
        raise TypeError(f"it returned {type(values).__name__}, not a list of {rows} numbers or None")
    values = list(values)
    if len(values) != rows:
        raise ValueError(f"it returned {len(values)} values for {rows} completions: it must return one for each")
    return values


def _check_signature(function: Callable, given: set[str]) -> None:
    """Raises `UserError` for a function that cannot be called with the keywords `given`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise UserError("it has no signature: wrap it in a function that takes completions and **kwargs.") from None
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for required in (p for p in parameters if p.default is p.empty and p.kind not in variable):
        if required.kind is required.POSITIONAL_ONLY:
            raise UserError(
                f"it takes {required.name!r} by position only, but rewards are called with keyword arguments."
            )
        if required.name not in given:
            names = ", ".join(sorted(given))
            raise UserError(f"it needs {required.name!r}, but the dataset has no such column. It can take: {names}.")


def _accepted(function: Callable, arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return arguments
    accepted = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
    return {key: value for key, value in arguments.items() if key in accepted}


def _wait(awaitable: Awaitable) -> Any:
    """Result of a coroutine. It runs in its own thread, because the caller's may have an event loop (notebooks)."""
    outcome: dict[str, Any] = {}

    async def main() -> Any:
        return await awaitable

    def run() -> None:
        try:
            outcome["value"] = asyncio.run(main())
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, name="async-reward")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _checked(values: list, name: str, step: int | None) -> list[float | None]:
    where = "" if step is None else f" at step {step}"
    checked: list[float | None] = []
    for row, value in enumerate(values):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            number = math.inf
        if number is not None and math.isinf(number):
            raise RewardError(
                f"reward {name!r} returned {value!r} on row {row}{where}: it must be a finite number or None.",
                name,
                row,
                step,
            )
        checked.append(None if number is None or math.isnan(number) else number)
    return checked
