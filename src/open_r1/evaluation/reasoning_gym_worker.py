"""Calls reasoning-gym, in a worker of `rewards.pool`: the same request has the same reply in every process."""

import random
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

NEED_MORE = {"composite"}
"""Tasks that do not work without a configuration."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """A problem, the `score` of an `answer` to it, or, for an empty request, the `names` of all tasks; or the
    `error`."""
    try:
        if not request:
            return {"version": version("reasoning_gym"), "names": sorted(DATASETS.keys() - NEED_MORE)}
        place = (request["task"], request["seed"], request["size"])
        entry = _entry(*place, request["index"])
        if "answer" in request:
            return {"score": float(_dataset(*place).score_answer(request["answer"], entry))}
        gold = entry["answer"]  # None where many answers are right, and none is the one
        return {"question": entry["question"], "answer": "" if gold is None else str(gold)}
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # scorers raise all kinds of errors on what they cannot parse
        return {"error": f"{type(error).__name__}: {error}"[:200]}


@lru_cache(8)
def _dataset(task: str, seed: int, size: int) -> Any:
    return reasoning_gym.create_dataset(task, seed=seed, size=size)


@lru_cache(4096)
def _entry(task: str, seed: int, size: int, index: int) -> dict[str, Any]:
    random.seed(f"{seed}/{index}")  # some tasks draw from the random numbers that all share
    return _dataset(task, seed, size)[index]
