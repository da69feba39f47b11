"""Tasks on strings and lists with hidden tests, made from nothing: traces for SFT, problems for GRPO and for testing.

    python examples/programs/tasks.py runs/programs/data --traces 4000 --problems 4000 --held-out 320

A task is a chain of steps, in words. A trace names each step with its line of Python and ends in the program. Traces
have one to three steps, problems two to five: a fine-tuned model solves those sometimes. No chain is in two of the
files. The hidden tests of a problem notice each step that is left out, and a program that always prints the same.
"""

import argparse
import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STRINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "reverse it": ("s = s[::-1]", lambda s: s[::-1]),
    "make it upper case": ("s = s.upper()", lambda s: s.upper()),
    "remove every vowel": ('s = "".join(c for c in s if c not in "aeiouAEIOU")', lambda s: _without_vowels(s)),
    "keep every second character, from the first on": ("s = s[::2]", lambda s: s[::2]),
    "drop its first character": ("s = s[1:]", lambda s: s[1:]),
    "double every character": ('s = "".join(c * 2 for c in s)', lambda s: "".join(c + c for c in s)),
    "sort its characters": ('s = "".join(sorted(s))', lambda s: "".join(sorted(s))),
    "append its length": ("s = s + str(len(s))", lambda s: f"{s}{len(s)}"),
}
LISTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "sort them": ("x = sorted(x)", sorted),
    "reverse their order": ("x = x[::-1]", lambda x: list(reversed(x))),
    "square each": ("x = [v * v for v in x]", lambda x: [v**2 for v in x]),
    "keep the even ones": ("x = [v for v in x if v % 2 == 0]", lambda x: [v for v in x if not v & 1]),
    "drop the largest": ("x.remove(max(x)) if x else None", lambda x: _without_largest(x)),
    "add 3 to each": ("x = [v + 3 for v in x]", lambda x: [v + 3 for v in x]),
    "keep each value once, in order": ("x = list(dict.fromkeys(x))", lambda x: _once(x)),
    "replace each by the sum so far": (
        "x = [sum(x[:i + 1]) for i in range(len(x))]",
        lambda x: [sum(x[: i + 1]) for i in range(len(x))],
    ),
}
WORDS = ["apple", "river", "stone", "cloud", "Quiet", "window", "banana", "Orange", "violet", "tree", "house", "Summer"]
TESTS = 5
TRACE_STEPS, PROBLEM_STEPS = (1, 2, 2, 3), (2, 3, 4, 5)


def _without_vowels(s: str) -> str:
    return s.translate({ord(c): None for c in "aeiouAEIOU"})


def _without_largest(x: list[int]) -> list[int]:
    place = x.index(max(x)) if x else 0
    return x[:place] + x[place + 1 :]


def _once(x: list[int]) -> list[int]:
    return [v for i, v in enumerate(x) if v not in x[:i]]


def task(kind: str, steps: list[str], rng: random.Random) -> dict[str, Any] | None:
    """A row: `prompt` with one example, the `solution` as a program, and hidden tests in `verification_info`. None for
    a chain whose tests would not notice a missing step."""
    strings = kind == "string"
    table = STRINGS if strings else LISTS
    inputs = [_input(strings, rng) for _ in range(TESTS + 1)]
    outputs = [_run(steps, table, value) for value in inputs]
    shorter = [steps[:i] + steps[i + 1 :] for i in range(len(steps))]
    hidden = outputs[1:]
    if any([_run(chain, table, value) for value in inputs[1:]] == hidden for chain in shorter):
        return None
    if len({str(output) for output in hidden}) < 3:
        return None
    first, last = _shown(inputs[0]), _shown(outputs[0])
    given = "a line of text" if strings else "a line of integers, separated by spaces,"
    print_it = "print(s)" if strings else "print(*x)"
    read = "s = input()" if strings else "x = list(map(int, input().split()))"
    prompt = (
        f"Write a Python program that reads {given} and does this in order: {'; '.join(steps)}. "
        f"It prints the result.\n\nExample input:\n{first}\nExample output:\n{last}"
    )
    cases = [{"input": _shown(i) + "\n", "output": _shown(o)} for i, o in zip(inputs[1:], outputs[1:], strict=True)]
    return {
        "prompt": prompt,
        "steps": len(steps),
        "solution": "\n".join([read, *(table[step][0] for step in steps), print_it]),
        "verification_info": {"language": "python", "test_cases": cases},
    }


def trace(row: dict[str, Any], steps: list[str], table: dict[str, Any]) -> dict[str, Any]:
    """The row as a conversation: each step with its line, then the program."""
    thought = "\n".join(f"{number}. {step}: {table[step][0]}" for number, step in enumerate(steps, start=1))
    text = f"<think>\n{thought}\n</think>\n<answer>\n```python\n{row['solution']}\n```\n</answer>"
    return {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": text}]}


def draw(
    count: int, lengths: tuple[int, ...], bucket: range, rng: random.Random, *, once: bool = False
) -> Iterator[tuple[dict[str, Any], list[str], dict[str, Any]]]:
    """Rows, with their steps and the table of these, of chains whose checksum falls into `bucket` of ten: no file has
    a chain of another. With `once`, no chain comes twice."""
    seen: set[str] = set()
    while count:
        kind, table = rng.choice([("string", STRINGS), ("list", LISTS)])
        steps = rng.choices(list(table), k=rng.choice(lengths))
        chain = "; ".join(steps)
        if zlib.crc32(chain.encode()) % 10 not in bucket or (once and chain in seen):
            continue
        if row := task(kind, steps, rng):
            seen.add(chain)
            yield row, steps, table
            count -= 1


def _input(strings: bool, rng: random.Random) -> Any:
    if strings:
        return " ".join(rng.sample(WORDS, rng.randint(1, 3)))
    return [rng.randint(0, 20) for _ in range(rng.randint(3, 7))]


def _run(steps: list[str], table: dict[str, Any], value: Any) -> Any:
    for step in steps:
        value = table[step][1](value)
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON line for each row."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {path}")


def main() -> None:
    """Writes `traces.jsonl`, `problems.jsonl` and `held_out.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--traces", type=int, default=4000)
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)
    write(args.output / "traces.jsonl", [trace(*drawn) for drawn in draw(args.traces, TRACE_STEPS, range(6), rng)])
    write(args.output / "problems.jsonl", [row for row, *_ in draw(args.problems, PROBLEM_STEPS, range(6, 9), rng)])
    held_out = draw(args.held_out, PROBLEM_STEPS, range(9, 10), rng, once=True)
    write(args.output / "held_out.jsonl", [row for row, *_ in held_out])


if __name__ == "__main__":
    main()
