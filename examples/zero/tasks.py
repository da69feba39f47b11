"""Problems of growing difficulty for R1-Zero, made from nothing: training problems and held-out ones.

    python examples/zero/tasks.py sums runs/zero/sums/data --problems 7680 --held-out 240

Tasks: sums (chains of additions and subtractions), equations (linear, one unknown), letters (how often a letter occurs)
and countdown (reach a target with 2, 3 or 4 numbers). The training problems begin with the easiest level and take in
one more level at a time, so that a model that is rarely right has something to learn from; half of them are of the
newest level. After 60% they come from all levels alike. Train on them once, in this order (`shuffle_dataset: false`):
240 steps of 32 prompts take 7,680. The held-out problems come from all levels alike, and none is trained on, not even
with its numbers in another order.
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
WORDS = ["river", "stone", "bridge", "apple", "summer", "evening", "children", "pebble", "window", "garden", "yellow"]
WORDS += ["mountain", "letter", "orange", "silver", "kitchen", "basket", "winter", "forest", "candle", "butter"]
RAMP = 0.6
"""Share of the training problems over which the levels are taken in."""
STEPS = "Think step by step, then give the final answer in \\boxed{}."
EXAMPLE = "For example, 7 from the numbers 3, 5, 9 is 9 - 5 + 3 = 7."


def sums(level: int, rng: random.Random) -> Problem:
    """Levels: 2 to 7 numbers up to 12. No partial sum is negative or above 30, so that each step is an easy one."""
    numbers = [rng.randint(1, 12)]
    for _ in range(level + 1):
        value, number = sum(numbers), rng.randint(1, 12)
        numbers.append(number if value < number or (value + number <= 30 and rng.random() < 0.5) else -number)
    return {"problem": f"What is {_chain(numbers)}? {STEPS}", "answer": str(sum(numbers))}


def equations(level: int, rng: random.Random) -> Problem:
    """Levels: x + b, a*x, and a*x + b with a up to 5, then up to 9."""
    x, b = rng.randint(1, 20 if level < 2 else 12), rng.randint(1, 12) * rng.choice((1, -1))
    a, b = ((1, b), (rng.randint(2, 9), 0), (rng.randint(2, 5), b), (rng.randint(2, 9), b))[level]
    left = ("x" if a == 1 else f"{a}*x") + (f" {'+' if b > 0 else '-'} {abs(b)}" if b else "")
    return {"problem": f"Solve for x: {left} = {a * x + b}. {STEPS}", "answer": str(x)}


def letters(level: int, rng: random.Random) -> Problem:
    """Levels: 1, 2, 4 and 6 words. Every count that a letter has in the words is as likely as the others, so that
    guessing the commonest one is rarely right."""
    text = " ".join(rng.choice(WORDS) for _ in range((1, 2, 4, 6)[level]))
    counts = sorted({text.count(letter) for letter in set(text) - {" "}})
    count = rng.choice(counts)
    letter = rng.choice(sorted(letter for letter in set(text) - {" "} if text.count(letter) == count))
    question = f'How many times does the letter "{letter}" occur in "{text}"?'
    return {"problem": f"{question} {STEPS}", "answer": str(count)}


def countdown(level: int, rng: random.Random) -> Problem:
    """Levels: 2, 3 and 4 numbers up to 12, with + and -."""
    target = -1
    while target < 0:
        numbers = [rng.randint(1, 12) for _ in range(level + 2)]
        terms = [numbers[0], *(rng.choice((1, -1)) * number for number in numbers[1:])]
        target = sum(terms)
    shown = rng.sample(numbers, len(numbers))
    question = f"Make {target} from the numbers {', '.join(map(str, shown))}, each used exactly once, with + and -."
    return {"problem": f"{question} {EXAMPLE}", "answer": _chain(terms), "numbers": shown, "target": target}


def _chain(terms: list[int]) -> str:
    """Such as `7 - 5 + 3`; the first term is positive."""
    return str(terms[0]) + "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms[1:])


TASKS: dict[str, tuple[Callable[[int, random.Random], Problem], int]] = {
    "sums": (sums, 6),
    "equations": (equations, 4),
    "letters": (letters, 4),
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
    parser.add_argument("--problems", type=int, default=7680)
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
