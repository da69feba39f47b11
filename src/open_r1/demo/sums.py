"""The demo's first task: sums such as `What is 7+18+4+12+9?`, with answers that a grader can check.

A small model can add two numbers, so it can add many one at a time, but not all at once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.demo.task import Task, write_answer
from open_r1.rewards import Verdict, grade_many

TERMS = (4, 6)
"""Minimum and maximum number of terms."""
LARGEST_TERM = 19
"""Terms are drawn uniformly from 1 to this number."""


@dataclass(frozen=True)
class SumProblem:
    """A sum of several terms."""

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
        """The sorted terms: their order does not make a new problem."""
        return ",".join(map(str, sorted(self.terms)))


def draw(rng: random.Random) -> SumProblem:
    """A random sum."""
    return SumProblem(tuple(rng.randint(1, LARGEST_TERM) for _ in range(rng.randint(*TERMS))))


def careful(problem: SumProblem) -> str:
    """A correct worked example that adds one term at a time."""
    total, *rest = problem.terms
    steps = []
    for term in rest:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    return write_answer("\n".join(steps), str(total))


def hasty(problem: SumProblem, rng: random.Random) -> str:
    """A wrong example without reasoning: it misses the sum by 1 to 9."""
    total = sum(problem.terms)
    miss = rng.randint(1, 9) * rng.choice((-1, 1))
    return write_answer("", str(total - miss if total + miss <= 0 else total + miss))


def grade(answers: Sequence[tuple[SumProblem, str]]) -> list[Verdict]:
    """Grades answers as the accuracy reward does."""
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
"""RL has to unlearn the hasty answers, about as many as `hasty_share`. The longest careful answer has 60 tokens."""
