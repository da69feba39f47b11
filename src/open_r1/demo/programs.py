"""The demo's second task: tiny Python programs, judged in the sandbox by tests that the model never sees.

A problem is a chain of steps on a list, such as `Sort, add 3, drop first, then sum. [3,1,2] gives 11.` A careful
answer builds its expression step by step. A hasty one omits a step, or cheats: it prints the output of the example in
the question.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.demo.task import Task, write_answer
from open_r1.rewards import Verdict, code_reward

STEPS = (2, 3)
"""Minimum and maximum number of steps before the last one, which reduces the list to a number."""
HIDDEN_TESTS = 3
_PLAIN = {"sort": "sorted({})", "reverse": "{}[::-1]", "drop first": "{}[1:]", "drop last": "{}[:-1]"}
_WITH_NUMBER = {"add": "[v+{} for v in {}]", "times": "[v*{} for v in {}]"}
_LAST = {"sum": "sum({})", "max": "max({})", "min": "min({})", "first": "{}[0]"}


@dataclass(frozen=True)
class ProgramProblem:
    """A chain of `steps`, and the input of the example in the question."""

    steps: tuple[str, ...]
    example: tuple[int, ...]

    @property
    def question(self) -> str:
        """What the user asks."""
        *steps, last = self.steps
        shown = f"{_as_text(self.example)} gives {run(self.steps, self.example)}"
        return f"{', '.join(steps).capitalize()}, then {last}. {shown}."

    @property
    def gold(self) -> str:
        """The correct expression."""
        return expressions(self.steps)[-1]

    @property
    def key(self) -> str:
        """The steps, so that no two splits share a program."""
        return ",".join(self.steps)

    @property
    def hidden(self) -> list[tuple[int, ...]]:
        """Inputs of the hidden tests, which depend only on the steps."""
        rng = random.Random(self.key)
        return [_list(rng) for _ in range(HIDDEN_TESTS)]


def draw(rng: random.Random) -> ProgramProblem:
    """A random chain whose hidden tests fail if a step is missing, or if the example's output is printed."""
    while True:
        steps = tuple(_step(rng) for _ in range(rng.randint(*STEPS)))
        problem = ProgramProblem((*steps, rng.choice(list(_LAST))), _list(rng))
        shortened = [problem.steps[:i] + problem.steps[i + 1 :] for i in range(len(steps))]
        outputs = [run(problem.steps, x) for x in problem.hidden]
        if any(outputs == [run(other, x) for x in problem.hidden] for other in shortened):
            continue
        if set(outputs) != {run(problem.steps, problem.example)}:
            return problem


def careful(problem: ProgramProblem) -> str:
    """A correct worked example that extends the expression by one step at a time."""
    built = expressions(problem.steps)
    return _answer("\n".join(built[:-1]), built[-1])


def hasty(problem: ProgramProblem, rng: random.Random) -> str:
    """A wrong example without reasoning: it omits a step, or prints the example's output."""
    if rng.random() < 0.5:
        return _answer("", str(run(problem.steps, problem.example)))
    omitted = rng.randrange(len(problem.steps) - 1)
    return _answer("", expressions(problem.steps[:omitted] + problem.steps[omitted + 1 :])[-1])


def expressions(steps: Sequence[str]) -> list[str]:
    """The expression in `x` after each step."""
    built, expression = [], "x"
    for step in steps:
        name, _, number = step.rpartition(" ")
        if name in _WITH_NUMBER:
            expression = _WITH_NUMBER[name].format(number, expression)
        else:
            expression = (_PLAIN | _LAST)[step].format(expression)
        built.append(expression)
    return built


def run(steps: Sequence[str], x: Sequence[int]) -> int:
    """What the correct program prints for `x`, computed independently of `expressions`."""
    values = list(x)
    for step in steps[:-1]:
        name, _, number = step.rpartition(" ")
        if step == "sort":
            values.sort()
        elif step == "reverse":
            values.reverse()
        elif name == "drop":
            values.pop(0 if number == "first" else -1)
        elif name == "add":
            values = [value + int(number) for value in values]
        else:
            values = [value * int(number) for value in values]
    return {"sum": sum(values), "max": max(values), "min": min(values), "first": values[0]}[steps[-1]]


def columns(problem: ProgramProblem) -> dict[str, Any]:
    """The columns that the code reward reads."""
    cases = [{"input": _as_text(x), "output": str(run(problem.steps, x))} for x in problem.hidden]
    return {"verification_info": {"language": "python", "test_cases": cases}}


def grade(answers: Sequence[tuple[ProgramProblem, str]]) -> list[Verdict]:
    """Runs the hidden tests in the sandbox."""
    shares = code_reward(
        [text for _, text in answers],
        [columns(problem)["verification_info"] for problem, _ in answers],
        stop_at_failure=True,
    )
    return [
        Verdict(share == 1.0, None, "passed the hidden tests" if share == 1.0 else "failed a hidden test")
        for share in shares
    ]


def _answer(thought: str, expression: str) -> str:
    return write_answer(thought, f"```python\nx=eval(input())\nprint({expression})\n```")


def _step(rng: random.Random) -> str:
    name = rng.choice([*_PLAIN, *_WITH_NUMBER])
    return f"{name} {rng.randint(2, 9)}" if name in _WITH_NUMBER else name


def _list(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randint(0, 9) for _ in range(rng.randint(5, 6)))


def _as_text(x: Sequence[int]) -> str:
    return str(list(x)).replace(" ", "")


CODE = Task(
    name="code",
    base=Path(__file__).parent / "base_code",
    words=(
        *("system", "user", "assistant", "python", "eval", "input", "print", "sorted", "sum", "max", "min"),
        *(" for", " in", " reverse", " drop", " first", " last", " add", " times", " sort", " then", " gives"),
        *("Sort", "Reverse", "Drop", "Add", "Times", "```", "())", ")[", "::-", "]))", "))", "])", ":]", "[:-"),
    ),
    hasty_share=0.65,
    max_tokens=128,
    examples_to_pretrain=64_000,
    draw=draw,
    columns=columns,
    careful=careful,
    hasty=hasty,
    grade=grade,
    overrides={
        "pretrain": ["--max_length", "224"],
        "distil": ["--max_length", "224"],
        "multi_stage_sft": ["--max_length", "224"],
        "zero": ["--reward_funcs", "binary_code", "--max_completion_length", "128", "--max_steps", "18"],
        "multi_stage": ["--reward_funcs", "binary_code", "--max_completion_length", "128", "--max_steps", "12"],
    },
)
