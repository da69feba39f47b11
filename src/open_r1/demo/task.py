"""The demo's task: chains of sums, such as `What is 7+18+4+12+9?`, with answers that a grader can check.

A small model can add two numbers, so it gets a chain right when it works through it a sum at a time; it
cannot do the whole chain at once. Worked examples come in two kinds: careful ones go step by step and are
right, hasty ones answer at once and are wrong. Both keep R1's `<think>` and `<answer>` format, so only
thinking tells them apart.
"""

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from open_r1.engine.protocol import Message

Split = Literal["pretrain", "train", "held_out"]

TERMS = (4, 6)
"""Fewest and most terms of a chain."""
LARGEST_TERM = 19
"""Terms are drawn evenly from 1 to this number."""
HELD_OUT_SEED = 20250120
"""The held-out problems are the same in every run: they are a benchmark, not a part of the seed."""

_SPLIT_OF_BUCKET: dict[int, Split] = {8: "train", 9: "held_out"}


@dataclass(frozen=True)
class SumProblem:
    """A chain of sums."""

    terms: tuple[int, ...]

    @property
    def question(self) -> str:
        """What the user asks."""
        return f"What is {'+'.join(map(str, self.terms))}?"

    @property
    def answer(self) -> int:
        """The sum."""
        return sum(self.terms)

    @property
    def split(self) -> Split:
        """Where the problem belongs: given by its terms in any order, so that no split can leak into another.

        A tenth of all problems is held out, a tenth trains (SFT and GRPO), the rest pre-trains the base.
        """
        bucket = zlib.crc32(",".join(map(str, sorted(self.terms))).encode()) % 10
        return _SPLIT_OF_BUCKET.get(bucket, "pretrain")


def problems(split: Split, count: int, seed: int) -> list[SumProblem]:
    """Draws `count` different problems of a split; the same seed gives the same problems."""
    rng = random.Random(f"{split}-{seed}")
    drawn: dict[SumProblem, None] = {}
    while len(drawn) < count:
        terms = tuple(rng.randint(1, LARGEST_TERM) for _ in range(rng.randint(*TERMS)))
        problem = SumProblem(terms)
        if problem.split == split:
            drawn[problem] = None
    return list(drawn)


def held_out(count: int) -> list[SumProblem]:
    """The problems that every stage is evaluated on."""
    return problems("held_out", count, HELD_OUT_SEED)


def check_disjoint(*sets: Iterable[SumProblem]) -> None:
    """Raises ValueError if two sets share a problem, in whatever order its terms are written."""
    keys: Sequence[set[tuple[int, ...]]] = [{tuple(sorted(p.terms)) for p in problems} for problems in sets]
    for (i, first), (j, second) in combinations(enumerate(keys), 2):
        if shared := first & second:
            raise ValueError(f"problem sets {i} and {j} share {len(shared)} problems, such as {min(shared)}")


def careful(problem: SumProblem) -> str:
    """A worked example that adds one term at a time, and is right."""
    total, *rest = problem.terms
    steps = []
    for term in rest:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    return write_answer("\n".join(steps), total)


def hasty(problem: SumProblem, rng: random.Random) -> str:
    """An example that does not think and misses the sum by 1 to 9."""
    miss = rng.randint(1, 9) * rng.choice((-1, 1))
    if problem.answer + miss <= 0:
        miss = -miss
    return write_answer("", problem.answer + miss)


def write_answer(thought: str, answer: int) -> str:
    """R1's format around a thought and an answer."""
    return f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>"


def worked_examples(count: int, hasty_share: float, seed: int) -> list[tuple[SumProblem, str]]:
    """The pre-training mixture: `count` problems, of which a share of `hasty_share` is answered in haste."""
    rng = random.Random(f"worked-{seed}")
    chosen = problems("pretrain", count, seed)
    return [(p, hasty(p, rng) if rng.random() < hasty_share else careful(p)) for p in chosen]


def conversation(question: str, reply: str | None = None) -> list[Message]:
    """The messages of a problem, with the assistant's reply if there is one."""
    messages: list[Message] = [{"role": "user", "content": question}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return messages
