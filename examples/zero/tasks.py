"""Problems of growing difficulty for R1-Zero, made from nothing: training problems and held-out ones.

    python examples/zero/tasks.py sums runs/zero/sums/data --problems 40000 --held-out 500

Tasks: sums (chains of additions and subtractions), equations (linear, one unknown), letters (how often a letter occurs)
and countdown (reach a target with 3 or 4 numbers). The training problems begin with the easiest level and take in one
more level at a time, so that a model that is rarely right has something to learn from; train on them in this order
(`shuffle_dataset: false`). The held-out problems are drawn from all levels alike, and none of them is trained on.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.run.entry import exit_with_sentence

Problem = dict[str, Any]
WORDS = ["river", "stone", "bridge", "apple", "summer", "evening", "children", "pebble", "window", "garden", "yellow"]
WORDS += ["mountain", "letter", "orange", "silver", "kitchen", "basket", "winter", "forest", "candle", "butter"]
STEPS = "Think step by step, then give the final answer as \\boxed{answer}."
EXAMPLE = "For example, 7 from the numbers 3, 5, 9 is 9 - 5 + 3 = 7."


def sums(level: int, rng: random.Random) -> Problem:
    """Levels: 2 to 4 terms of one digit, then 2 to 4 terms of up to two digits."""
    terms, largest = level % 3 + 2, 9 if level < 3 else 99
    text, value = _chain([rng.randint(1, largest) for _ in range(terms)], "+-", rng)
    return {"problem": f"What is {text}? {STEPS}", "answer": str(value)}


def equations(level: int, rng: random.Random) -> Problem:
    """Levels: x + b, a*x, a*x + b with b up to 9, then the same with b up to 50 and a up to 19."""
    most_a, most_b = (9, 9) if level < 3 else (19, 50)
    x, a, b = rng.randint(1, 20), rng.randint(2, most_a), rng.randint(1, most_b) * rng.choice((1, -1))
    a, b = (1, b) if level % 3 == 0 else (a, 0) if level % 3 == 1 else (a, b)
    left = ("x" if a == 1 else f"{a}*x") + (f" {'+' if b > 0 else '-'} {abs(b)}" if b else "")
    return {"problem": f"Solve for x: {left} = {a * x + b}. {STEPS}", "answer": str(x)}


def letters(level: int, rng: random.Random) -> Problem:
    """Levels: 1, 2, 4, 6, 8 and 10 words. A letter is drawn by how often it occurs, so that 0 is never right."""
    text = " ".join(rng.choice(WORDS) for _ in range((1, 2, 4, 6, 8, 10)[level]))
    letter = rng.choice(text.replace(" ", ""))
    question = f'How many times does the letter "{letter}" occur in "{text}"?'
    return {"problem": f"{question} {STEPS}", "answer": str(text.count(letter))}


def countdown(level: int, rng: random.Random) -> Problem:
    """Levels: 2 numbers, 3 with + and -, 3 with +, - and *, then 4 with + and -, 4 with all three."""
    count, operators = ((2, "+-"), (3, "+-"), (3, "+-*"), (4, "+-"), (4, "+-*"))[level]
    target = -1
    while target < 0:
        numbers = [rng.randint(1, 20) for _ in range(count)]
        text, target = _chain(numbers, operators, rng)
    shown = rng.sample(numbers, count)
    allowed = "+ and -" if operators == "+-" else "+, - and *"
    question = f"Make {target} from the numbers {', '.join(map(str, shown))}, each used exactly once, with {allowed}."
    return {"problem": f"{question} {EXAMPLE}", "answer": text, "numbers": shown, "target": target}


TASKS: dict[str, tuple[Callable[[int, random.Random], Problem], int]] = {
    "sums": (sums, 6),
    "equations": (equations, 6),
    "letters": (letters, 6),
    "countdown": (countdown, 5),
}
"""Task to its function and the number of its levels."""


def _chain(numbers: list[int], operators: str, rng: random.Random) -> tuple[str, int]:
    """The numbers with random operators between them, as text and as value."""
    text = str(numbers[0]) + "".join(f" {rng.choice(operators)} {number}" for number in numbers[1:])
    return text, int(eval(text, {"__builtins__": {}}))


def make(task: str, problems: int, held_out: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Training problems, by growing difficulty, and held-out problems of all levels, no prompt in both.

    Raises `UserError` if a level has too few problems.
    """
    draw, levels = TASKS[task]
    rng = random.Random(f"{task}/{seed}")
    apart: dict[str, Problem] = {}
    for i in range(held_out):
        row = _draw(draw, i % levels, rng, apart)
        apart[row["problem"]] = row
    train = [_draw(draw, rng.randrange(1 + i * levels // problems), rng, apart) for i in range(problems)]
    return train, list(apart.values())


def _draw(draw: Callable[[int, random.Random], Problem], level: int, rng: random.Random, apart: Problem) -> Problem:
    """A problem whose prompt is not in `apart`."""
    for _ in range(10_000):
        row = draw(level, rng)
        if row["problem"] not in apart:
            return {"level": level + 1, **row}
    raise UserError(f"held-out: level {level + 1} has too few problems for so many; ask for fewer.")


def main() -> None:
    """Writes `problems.jsonl` and `held_out.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=40000)
    parser.add_argument("--held-out", type=int, default=500)
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
