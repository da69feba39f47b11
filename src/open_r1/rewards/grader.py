"""Right, wrong or ungradable: one completion against one gold answer."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from open_r1.errors import UserError
from open_r1.rewards import answers, fastpath, reasons, structure
from open_r1.rewards.notation import canonical
from open_r1.rewards.pool import Pool, Reply

MAX_ANSWER = 2_000
MAX_DEPTH = 40
MAX_STRUCTURE = 400
_LIMITS = {
    "time": "took longer than {seconds:g} s",
    "memory": "needed more than {memory_mb} MB",
    "nesting": "is nested too deeply",
    "crash": "ended its worker process",
}


_graders: "weakref.WeakSet[Grader]" = weakref.WeakSet()


@dataclass(frozen=True)
class Verdict:
    """Whether a completion is right, and why."""

    correct: bool | None
    """None if it cannot be decided: the right answer cannot be parsed, or a limit was reached."""
    extracted: str | None
    """The answer that was found in the completion. None if there is none."""
    reason: str
    """How the two answers were compared, or why they were not."""


@dataclass(frozen=True)
class _Pending:
    """A comparison that a worker is computing, and the reason that its verdict will give."""

    answer: str | None
    reason: str
    future: "Future[Reply]"


class Grader:
    """Grades in `workers` processes, and limits each comparison to `seconds` and `memory_mb`.

    The calling process decides simple cases itself; the other verdicts are cached. It is safe to use from threads.
    """

    def __init__(
        self,
        workers: int | None = None,
        seconds: float = 5.0,
        memory_mb: int = 1024,
        max_answer: int = MAX_ANSWER,
        cache_size: int = 65_536,
    ) -> None:
        self.pool = Pool(workers, seconds, memory_mb)
        self.max_answer, self.cache_size = max_answer, cache_size
        self._cache: OrderedDict[tuple[str, str | None], Future[Reply]] = OrderedDict()
        self._lock = threading.Lock()
        _graders.add(self)

    def grade_many(self, *, completions: list[str], golds: list[str]) -> list[Verdict]:
        """A verdict for each completion against its gold."""
        started = [self._start(c, g) for c, g in zip(completions, golds, strict=True)]
        return [
            verdict if isinstance(verdict, Verdict) else self._verdict(verdict)  # waits for the workers
            for verdict in started
        ]

    def prefetch(self, *, completions: list[str], golds: list[str]) -> None:
        """Starts grading in the background, so that a later `grade_many` finds the verdicts ready."""
        for completion, gold in zip(completions, golds, strict=True):
            self._start(completion, gold)

    def check_gold(self, gold: str) -> str | None:
        """Why no completion can be graded against `gold`; None if it is fine."""
        answer = _extract_gold(gold)
        problem = self._problem(answer)
        if problem or fastpath.is_plain(answer):
            return problem
        reply = self._ask(gold=answer).result()
        if reply.limit:
            return self._limit("the gold answer", reply)
        return None if reply.value else "the gold answer cannot be read as mathematics, a choice or a short text"

    def check_golds(self, golds: Sequence[str]) -> list[str | None]:
        """`check_gold` of many, in parallel."""
        for answer in {_extract_gold(gold) for gold in golds}:
            if not self._problem(answer) and not fastpath.is_plain(answer):
                self._ask(gold=answer)
        return [self.check_gold(gold) for gold in golds]

    def close(self) -> None:
        """Ends the workers."""
        self.pool.close()

    def _start(self, completion: str, gold: str) -> "Verdict | _Pending":
        gold_answer = _extract_gold(gold)
        problem = self._problem(gold_answer)
        if problem:
            return Verdict(None, None, problem)
        found = answers.find_answer(completion)
        answer = found.answer if found else None
        if answer is not None and len(answer) > self.max_answer:
            answer = " ".join(answer.split())
        if answer is not None and len(answer) > self.max_answer:
            return Verdict(None, answer, f"the answer has {len(answer)} characters, more than {self.max_answer}")
        if found is None or answer is None:
            nothing = Verdict(False, None, "the completion gives no answer")
            return nothing if fastpath.is_plain(gold_answer) else _Pending(None, "", self._ask(gold=gold_answer))
        settled = _settle(answer, gold_answer)
        if settled is not None:
            return Verdict(settled, answer, reasons.reason(reasons.PLAIN, found.place, answer, gold_answer))
        if _depth(answer) > MAX_DEPTH:
            return Verdict(None, answer, f"the answer is nested more than {MAX_DEPTH} deep")
        reason = reasons.reason(reasons.ALGEBRA, found.place, answer, gold_answer)
        return _Pending(answer, reason, self._ask(answer=answer, gold=gold_answer))

    def _problem(self, gold_answer: str) -> str | None:
        if not gold_answer.strip():
            return "the gold answer is empty"
        if len(gold_answer) > self.max_answer:
            return f"the gold answer has {len(gold_answer)} characters, more than {self.max_answer}"
        return None

    def _verdict(self, pending: "_Pending") -> Verdict:
        reply, answer = pending.future.result(), pending.answer
        if reply.limit:
            return Verdict(None, answer, self._limit("comparing the answer", reply))
        if reply.value is None or (answer is None and not reply.value):
            return Verdict(None, answer, "the gold answer cannot be read")
        if answer is None:
            return Verdict(False, None, "the completion gives no answer")
        return Verdict(reply.value, answer, pending.reason)

    def _limit(self, what: str, reply: Reply) -> str:
        assert reply.limit
        return f"{what} " + _LIMITS[reply.limit].format(seconds=self.pool.seconds, memory_mb=self.pool.memory_mb)

    def _ask(self, *, gold: str, answer: str | None = None) -> "Future[Reply]":
        key = (gold, answer)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            request = {"gold": gold} if answer is None else {"answer": answer, "gold": gold}
            future = self._cache[key] = self.pool.submit(request)
            if len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
        future.add_done_callback(lambda done: self._evict_failure(key, done))
        return future

    def _evict_failure(self, key: tuple[str, str | None], future: "Future[Reply]") -> None:
        """Removes failed comparisons from the cache: that a worker died or could not start says nothing about the
        answer."""
        if future.cancelled() or future.exception() or future.result().limit == "crash":
            with self._lock:
                self._cache.pop(key, None)

    def forget(self) -> None:
        """Drops pending verdicts: a forked child would wait for them forever."""
        self._cache, self._lock = OrderedDict(), threading.Lock()


@lru_cache(maxsize=8192)
def _settle(answer: str, gold: str) -> bool | None:
    """Decides simple cases in this process, including lists and tuples of simple items. Cached, because `prefetch` and
    then `grade_many` ask for the same ones."""
    if answer.isascii() and answer.isdigit() and gold.isascii() and gold.isdigit():
        return answer.lstrip("0") == gold.lstrip("0")
    if len(answer) > MAX_STRUCTURE or len(gold) > MAX_STRUCTURE:
        return True if canonical(answer) == canonical(gold) else None
    return structure.compare(answer, gold, lambda one, other: None)


_extract_gold = lru_cache(maxsize=65_536)(answers.extract_gold)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")}]":
            depth -= 1
    return deepest


_default: Grader | None = None
_default_lock = threading.Lock()


def default_grader() -> Grader:
    """The grader that this process shares."""
    global _default
    with _default_lock:
        _default = _default or Grader()
        return _default


def configure(**options: Any) -> None:
    """Replaces the shared grader. Takes the options of `Grader`."""
    global _default
    with _default_lock:
        if _default is not None:
            _default.close()
        _default = Grader(**options)


def grade(completion: str, answer: str | int | float) -> Verdict:
    """Checks whether the final answer of a completion equals the right answer.

    Args:
        completion: The text of a completion.
        answer: The right answer, or a solution that ends with it.

    Returns:
        `correct` is True, False, or None if it cannot be decided. `extracted` is the answer that was found in the
        completion. `reason` says how the two were compared.

    Raises:
        UserError: `completion` is not text, or `answer` is neither text nor a number.
    """
    if not isinstance(completion, str):
        raise UserError(f"completion is a {type(completion).__name__}: expected text (the content of a message).")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise UserError(f"answer is a {type(answer).__name__}: expected text or a number.")
    return grade_many(completions=[completion], golds=[str(answer)])[0]


def grade_many(*, completions: list[str], golds: list[str]) -> list[Verdict]:
    """`grade` for many, in parallel."""
    return default_grader().grade_many(completions=completions, golds=golds)


def prefetch(*, completions: list[str], golds: list[str]) -> None:
    """Starts grading finished completions while others are still being sampled."""
    default_grader().prefetch(completions=completions, golds=golds)


def check_gold(gold: str) -> str | None:
    """Why no completion can be graded against `gold`; None if it is fine."""
    return default_grader().check_gold(gold)


def check_golds(golds: Sequence[str]) -> list[str | None]:
    """`check_gold` of many, in parallel."""
    return default_grader().check_golds(golds)


def _forget() -> None:
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()
    for grader in list(_graders):
        grader.forget()


os.register_at_fork(after_in_child=_forget)
