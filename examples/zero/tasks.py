"""Problems of growing difficulty for R1-Zero, made from nothing: training problems and held-out ones.

    python examples/zero/tasks.py sums runs/zero/sums/data --problems 4800 --held-out 240

Tasks: sums, largest (of several numbers), sequences (the next number) and countdown (reach a target with 2, 3 or 4
numbers). The training problems begin with the easiest level and take in one more level at a time, so that a model that
is rarely right has something to learn from; half of them are of the newest level. After 40% they come from all levels
alike. Train on them once, in this order (`shuffle_dataset: false`): 150 steps of 32 prompts take 4,800. The held-out
problems come from all levels alike, and none is trained on, not even with its numbers in another order.
"""

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.run.entry import exit_with_sentence

Problem = dict[str, Any]
Words = tuple[str, ...]
RAMP = 0.4
"""Share of the training problems over which the levels are taken in."""
STEPS = "Think step by step, then give the final answer in \\boxed{}."
EXAMPLE = "For example, 7 from the numbers 3, 5, 9 is 9 - 5 + 3 = 7."


def sums(level: int, rng: random.Random) -> Problem:
    """Levels: two numbers up to 12, up to 20 and up to 50; three numbers up to 12. No partial sum is negative."""
    most, count = ((12, 2), (20, 2), (50, 2), (12, 3))[level]
    numbers = [rng.randint(1, most)]
    while len(numbers) < count:
        value, number = sum(numbers), rng.randint(1, most)
        numbers.append(number if value < number or rng.random() < 0.5 else -number)
    return {"problem": f"What is {_chain(numbers)}? {STEPS}", "answer": str(sum(numbers))}


def largest(level: int, rng: random.Random) -> Problem:
    """Levels: 3, 5, 8 and 12 different numbers up to 99."""
    numbers = rng.sample(range(1, 100), (3, 5, 8, 12)[level])
    return {"problem": f"Which is the largest of {_listed(numbers)}? {STEPS}", "answer": str(max(numbers))}


def sequences(level: int, rng: random.Random) -> Problem:
    """Levels: steps of 1 to 3, of 2 to 9, of 2 to 9 downward, and of 10 to 20."""
    step, start = rng.randint(*((1, 3), (2, 9), (2, 9), (10, 20))[level]), rng.randint(1, 60)
    numbers = [start + step * i for i in range(5)]
    *shown, following = reversed(numbers) if level == 2 else numbers
    return {"problem": f"What is the next number: {_listed(shown)}? {STEPS}", "answer": str(following)}


def countdown(level: int, rng: random.Random) -> Problem:
    """Levels: 2, 3 and 4 numbers up to 12, with + and -."""
    target = -1
    while target < 0:
        numbers = [rng.randint(1, 12) for _ in range(level + 2)]
        terms = [numbers[0], *(rng.choice((1, -1)) * number for number in numbers[1:])]
        target = sum(terms)
    shown = rng.sample(numbers, len(numbers))
    question = f"Make {target} from the numbers {_listed(shown)}, each used exactly once, with + and -."
    return {"problem": f"{question} {EXAMPLE}", "answer": _chain(terms), "numbers": shown, "target": target}


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _chain(terms: list[int]) -> str:
    """Such as `7 - 5 + 3`; the first term is positive."""
    return str(terms[0]) + "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms[1:])


TASKS: dict[str, tuple[Callable[[int, random.Random], Problem], int]] = {
    "sums": (sums, 4),
    "largest": (largest, 4),
    "sequences": (sequences, 4),
    "countdown": (countdown, 3),
}
"""Task to its function and the number of its levels."""


def make(task: str, problems: int, held_out: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Training problems, by growing difficulty, and held-out problems of all levels. No two held-out problems, and no
    training problem and a held-out one, have the same words and numbers, in whatever order.

    Raises `UserError` if a level has too few problems.
    """
    draw, levels = TASKS[task]
    rng = random.Random(f"{task}/{seed}")
    apart: dict[Words, Problem] = {}
    for i in range(held_out):
        row = _draw(draw, i % levels, rng, apart)
        apart[words(row)] = row
    train = [_draw(draw, _level(i / problems, levels, rng), rng, apart) for i in range(problems)]
    return train, list(apart.values())


def _level(progress: float, levels: int, rng: random.Random) -> int:
    """Level of the training problem at `progress`, a share of 1."""
    if progress >= RAMP:
        return rng.randrange(levels)
    newest = int(progress / RAMP * levels)
    return newest if rng.random() < 0.5 else rng.randrange(newest + 1)


def words(row: Problem) -> Words:
    """The words, numbers and signs of the problem, sorted: 3 + 8 and 8 + 3 are the same."""
    return tuple(sorted(re.findall(r"\w+|[-+*]", row["problem"])))


def _draw(
    draw: Callable[[int, random.Random], Problem], level: int, rng: random.Random, apart: dict[Words, Problem]
) -> Problem:
    """A problem whose `words` are not in `apart`."""
    for _ in range(10_000):
        row = draw(level, rng)
        if words(row) not in apart:
            return {"level": level + 1, **row}
    raise UserError(f"held-out: level {level + 1} has too few problems for so many; ask for fewer.")


def main() -> None:
    """Writes `problems.jsonl` and `held_out.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=4800)
    parser.add_argument("--held-out", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, held_out = make(args.task, args.problems, args.held_out, args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("problems", train), ("held_out", held_out)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (args.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    print(f"{len(train)} problems and {len(held_out)} held-out ones in {args.folder}")


if __name__ == "__main__":
    exit_with_sentence(main)
