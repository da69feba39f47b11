"""A round of rollouts: completions of a set of prompts, with their rewards; and rounds written ahead, in a thread."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from open_r1.engine.protocol import Completion, Engine, Sampling
from open_r1.rewards import RewardError
from open_r1.training.rollouts import sample_groups, score_groups, start_grading
from open_r1.training.watchdog import Watchdog


@dataclass
class Round:
    """Groups of `completions` for `prompts` and their `rewards (B, R)`, or the `error` of a reward; `seconds` that
    generation and scoring took."""

    prompts: list[Mapping[str, Any]]
    completions: list[list[Completion]]
    rewards: Tensor = field(default_factory=lambda: torch.empty(0))
    error: RewardError | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: everything but the prompts."""
        completions = [[c.__dict__ for c in group] for group in self.completions]
        return {"completions": completions, "rewards": self.rewards, "seconds": self.seconds}

    @staticmethod
    def from_state(prompts: list[Mapping[str, Any]], state: Mapping[str, Any]) -> "Round":
        """Takes back what `state` returned."""
        completions = [[Completion(**c) for c in group] for group in state["completions"]]
        return Round(prompts, completions, state["rewards"], seconds=state["seconds"])


@dataclass(frozen=True)
class RoundWriter:
    """Writes and scores rounds, without a look at model or other ranks, so that a thread can do it."""

    engine: Engine
    sampling: Sampling
    reward_funcs: Sequence[Callable]
    reward_names: Sequence[str]
    watchdog: Watchdog

    def write(self, prompts: list[Mapping[str, Any]], seeds: Sequence[int], step: int) -> Round:
        """Samples a group for every prompt, each from its own seed, and scores it. `step` is for messages."""
        began = time.perf_counter()
        self.watchdog.beat("generation")
        completions = sample_groups(self.engine, prompts, self.sampling, seeds, on_group=self._progress)
        generated = time.perf_counter()
        self.watchdog.beat("scoring")
        written = Round(prompts, completions)
        try:
            written.rewards = score_groups(prompts, completions, self.reward_funcs, self.reward_names, step)
        except RewardError as error:
            written.error = error
        written.seconds = {"generation": generated - began, "scoring": time.perf_counter() - generated}
        return written

    def _progress(self, row: Mapping[str, Any], group: list[Completion]) -> None:
        self.watchdog.beat("generation")
        if "accuracy" in self.reward_names:
            start_grading(row, group)


class RoundsAhead:
    """Rounds, by number, that a thread writes while the trainer learns from earlier ones."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self._futures: dict[int, Future[Round]] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __contains__(self, number: int) -> bool:
        return number in self._futures

    def start(self, jobs: Mapping[int, Callable[[], Round]]) -> None:
        """Writes rounds, one after another, in a new thread."""
        futures: dict[int, Future[Round]] = {number: Future() for number in jobs}
        self._futures |= futures

        def work() -> None:
            for number, job in jobs.items():
                try:
                    futures[number].set_result(job())
                except BaseException as error:
                    futures[number].set_exception(error)
            self.watchdog.rest()

        threading.Thread(target=work, name="rollouts", daemon=True).start()

    def take(self, number: int) -> Round:
        """Waits for a round and removes it. Raises what its writing raised."""
        return self._wait(self._futures.pop(number))

    def settle(self) -> dict[int, Round]:
        """Waits until all rounds are written; they stay here."""
        return {number: self._wait(future) for number, future in self._futures.items()}

    def put_back(self, rounds: Mapping[int, Round]) -> None:
        """Takes rounds that were written before."""
        for number, written in rounds.items():
            self._futures[number] = Future()
            self._futures[number].set_result(written)

    def _wait(self, future: Future[Round]) -> Round:
        # The thread that writes has a clock of its own.
        self.watchdog.rest()
        return future.result()
