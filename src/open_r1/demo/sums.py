"""The demo's first task: chains of sums, such as `What is 7+18+4+12+9?`, with answers that a grader can check.

A small model can add two numbers, so it gets a chain right when it works through it a sum at a time; it
cannot do the whole chain at once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.demo.task import Task, write_answer
from open_r1.rewards import Verdict, grade_many

TERMS = (4, 6)
"""Fewest and most terms of a chain."""
LARGEST_TERM = 19
"""Terms are drawn evenly from 1 to this number."""


@dataclass(frozen=True)
class SumProblem:
    """A chain of sums."""

    terms: tuple[int, ...]

    @property
    def question(self) -> str:
        """What the user asks."""
        return f"What is {'+'.join(map(str, self.terms))}?"

    @property
    def gold(self) -> str:
        """The sum."""
        return str(sum(self.terms))

    @property
    def key(self) -> str:
        """The terms in order of size: a chain is the same problem in whatever order it is written."""
        return ",".join(map(str, sorted(self.terms)))


def draw(rng: random.Random) -> SumProblem:
    """A random chain."""
    return SumProblem(tuple(rng.randint(1, LARGEST_TERM) for _ in range(rng.randint(*TERMS))))


def careful(problem: SumProblem) -> str:
    """A worked example that adds one term at a time, and is right."""
    total, *rest = problem.terms
    steps = []
    for term in rest:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    return write_answer("\n".join(steps), str(total))


def hasty(problem: SumProblem, rng: random.Random) -> str:
    """An example that does not think and misses the sum by 1 to 9."""
    total = sum(problem.terms)
    miss = rng.randint(1, 9) * rng.choice((-1, 1))
    return write_answer("", str(total - miss if total + miss <= 0 else total + miss))


def grade(answers: Sequence[tuple[SumProblem, str]]) -> list[Verdict]:
    """Verdicts of the rewards' grader."""
    return grade_many(completions=[text for _, text in answers], golds=[problem.gold for problem, _ in answers])


SUMS = Task(
    name="sums",
    base=Path(__file__).parent / "base",
    words=("system", "user", "assistant", "What", " is"),
    hasty_share=0.65,
    max_tokens=80,
    examples_to_pretrain=83_200,
    draw=draw,
    columns=lambda problem: {"answer": problem.gold},
    careful=careful,
    hasty=hasty,
    grade=grade,
    overrides={},
)
"""A hasty share of 0.65 is about the share of hasty answers that RL has to unlearn; the longest careful answer has 60
tokens."""
