"""The parts of a demo task: problems in three splits, two kinds of worked examples, and a judge.

Careful examples think step by step and are right. Hasty ones answer at once and are wrong. Both have R1's `<think>` and
`<answer>` format, so only the reasoning distinguishes them.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Protocol

from open_r1.engine.protocol import Message
from open_r1.rewards import Verdict

Split = Literal["pretrain", "train", "held_out"]
HELD_OUT_SEED = 20250120
"""The held-out problems are a benchmark: they are the same for every seed."""
_SPLIT_OF_BUCKET: dict[int, Split] = {8: "train", 9: "held_out"}


class Problem(Protocol):
    """A hashable problem."""

    @property
    def question(self) -> str:
        """What the user asks."""
        ...

    @property
    def gold(self) -> str:
        """The right answer, as it is shown."""
        ...

    @property
    def key(self) -> str:
        """Equal for problems that must be in the same split."""
        ...


@dataclass(frozen=True)
class Task:
    """A task of the demo.

    `draw` makes a random problem, `columns` the columns of it that rewards read, and `grade` the verdicts on
    completions. `overrides` are options on top of each of the demo's recipes, by its name.
    """

    name: str
    base: Path
    words: tuple[str, ...]
    hasty_share: float
    max_tokens: int
    examples_to_pretrain: int
    draw: Callable[[random.Random], Any]
    columns: Callable[[Any], Mapping[str, Any]]
    careful: Callable[[Any], str]
    hasty: Callable[[Any, random.Random], str]
    grade: Callable[[Sequence[tuple[Any, str]]], list[Verdict]]
    overrides: Mapping[str, Sequence[str]]

    def problems(self, split: Split, count: int, seed: int) -> list[Any]:
        """Draws `count` distinct problems of a split, which depend only on `seed`."""
        rng = random.Random(f"{split}-{seed}")
        drawn: dict[Any, None] = {}
        while len(drawn) < count:
            problem = self.draw(rng)
            if split_of(problem) == split:
                drawn[problem] = None
        return list(drawn)

    def held_out(self, count: int) -> list[Any]:
        """The problems that every stage is evaluated on."""
        return self.problems("held_out", count, HELD_OUT_SEED)

    def worked_examples(self, count: int, seed: int) -> list[tuple[Any, str]]:
        """The pre-training mixture: `count` problems, of which about `hasty_share` have a hasty answer."""
        rng = random.Random(f"worked-{seed}")
        chosen = self.problems("pretrain", count, seed)
        return [(p, self.hasty(p, rng) if rng.random() < self.hasty_share else self.careful(p)) for p in chosen]


def split_of(problem: Problem) -> Split:
    """The split of a problem, determined by its key, so that no split can leak into another.

    A tenth of all problems are held out, a tenth are for training (SFT and GRPO), the rest for pre-training the base.
    """
    return _SPLIT_OF_BUCKET.get(zlib.crc32(problem.key.encode()) % 10, "pretrain")


def check_disjoint(*sets: Iterable[Problem]) -> None:
    """Raises `ValueError` if two sets share a problem's key."""
    keys = [{problem.key for problem in problems} for problems in sets]
    for (i, first), (j, second) in combinations(enumerate(keys), 2):
        if shared := first & second:
            raise ValueError(f"problem sets {i} and {j} share {len(shared)} problems, such as {min(shared)}")


def write_answer(thought: str, answer: str) -> str:
    """A thought and an answer in R1's format."""
    return f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>"


def conversation(question: str, reply: str | None = None) -> list[Message]:
    """The messages of a problem, with the assistant's reply if there is one."""
    messages: list[Message] = [{"role": "user", "content": question}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return messages
