"""Rounds of rollouts, sampled and scored: at once, or ahead in a thread."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from open_r1.engine.protocol import Completion, Engine, Sampling
from open_r1.rewards import RewardError
from open_r1.training.rollouts import Round, sample_groups, score_groups, start_grading, start_judging
from open_r1.training.watchdog import Watchdog


@dataclass(frozen=True)
class RoundSampler:
    """Samples and scores rounds. Knows neither the model nor other ranks, so that a thread can do it."""

    engine: Engine
    sampling: Sampling
    reward_funcs: Sequence[Callable]
    reward_names: Sequence[str]
    watchdog: Watchdog

    def sample(self, prompts: list[Mapping[str, Any]], seeds: Sequence[int], step: int, n: int | None = None) -> Round:
        """Samples a group of `n` completions (default: `sampling.n`) for every prompt, each group from its own seed,
        and scores it. `step` is for error messages."""
        sampling = self.sampling if n is None else replace(self.sampling, n=n)
        began = time.perf_counter()
        self.watchdog.beat("generation")
        completions = sample_groups(self.engine, prompts, sampling, seeds, on_completion=self._progress)
        generated = time.perf_counter()
        self.watchdog.beat("scoring")
        sampled = Round(prompts, completions)
        try:
            sampled.rewards = score_groups(prompts, completions, self.reward_funcs, self.reward_names, step)
        except RewardError as error:
            sampled.error = error
        sampled.seconds = {"generation": generated - began, "scoring": time.perf_counter() - generated}
        return sampled

    def _progress(self, row: Mapping[str, Any], completion: Completion) -> None:
        self.watchdog.beat("generation")
        if "accuracy" in self.reward_names:
            start_grading(row, completion)
        start_judging(self.reward_funcs, row, completion)


class RoundsAhead:
    """Rounds that a thread samples while the trainer learns from earlier ones, by number."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self._futures: dict[int, Future[Round]] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __contains__(self, number: int) -> bool:
        return number in self._futures

    def start(self, jobs: Mapping[int, Callable[[], Round]]) -> None:
        """Samples rounds, one after another, in a new thread."""
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
        """Waits for a round and removes it. Raises what sampling it raised."""
        return self._wait(self._futures.pop(number))

    def settle(self) -> dict[int, Round]:
        """Waits until all rounds are sampled, and returns them without removing them."""
        return {number: self._wait(future) for number, future in self._futures.items()}

    def put_back(self, rounds: Mapping[int, Round]) -> None:
        """Adds rounds that were sampled before, for `take`."""
        for number, sampled in rounds.items():
            self._futures[number] = Future()
            self._futures[number].set_result(sampled)

    def _wait(self, future: Future[Round]) -> Round:
        # The sampling thread reports its own progress to the watchdog.
        self.watchdog.rest()
        return future.result()
