"""HumanEval (Chen et al. 2021, arXiv 2107.03374), MBPP (Austin et al. 2021, arXiv 2108.07732), and their plus versions
with more tests (EvalPlus, Liu et al. 2023, arXiv 2305.01210): a function, judged by asserts.

A program never runs in the same process as the asserts, which contain the expected results (recorded.py).
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from threading import Lock
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.code.harness import python_program, require_numpy
from open_r1.evaluation.code.judging import ENDINGS, Ungradable, judge_with, listed, required_text
from open_r1.evaluation.problems import BenchmarkProblem, Source, Task
from open_r1.rewards.code.judge import shortened
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.sandbox import Limits, Outcome

Rows = Sequence[Mapping[str, Any]]
LIMITS = Limits(seconds=10, memory_mb=4096, output_bytes=64 << 20)
SAMPLES = 16
COMPLETE = (
    "Complete this Python function. Put the whole function, with all that it needs, into one code block:\n\n"
    "```python\n{problem}\n```"
)
WRITE = (
    "{problem}\n\nCall the function {function}. It has to pass tests such as:\n\n```python\n{example}\n```\n\n"
    "Put the whole Python code into one code block."
)
SOURCES = {
    "humaneval": Source("openai/openai_humaneval", "test"),
    "humaneval_plus": Source("evalplus/humanevalplus", "test"),
    "mbpp": Source("google-research-datasets/mbpp", "test", "sanitized"),
    "mbpp_plus": Source("evalplus/mbppplus", "test"),
}


def function_task(name: str) -> Task:
    """One of `SOURCES` as a task."""
    read_row, prompt = (_humaneval, COMPLETE) if name.startswith("humaneval") else (_mbpp, WRITE)

    def read(rows: Rows, where: str) -> Iterator[BenchmarkProblem]:
        if name.endswith("_plus"):
            require_numpy(name)
        for index, row in enumerate(rows):
            yield read_row(index, row, f"{where}, row {index + 1}")

    return Task(
        name=name,
        source=SOURCES[name],
        samples=SAMPLES,
        files=(name,),
        prompt=prompt,
        read=read,
    )


class Tests:
    """What judges a function: the asserts, and the reference solution, from which the arguments of their calls are
    recorded.

    `prefix` is put before every program. `classes` is the source of those classes of the reference whose objects the
    asserts pass.
    """

    def __init__(self, function: str, reference: str, asserts: str, prefix: str = "", classes: str = "") -> None:
        self.function, self.reference, self.asserts = function, reference, asserts
        self.prefix, self.classes = prefix, classes
        self._lock = Lock()
        self._calls: list[Any] | None = None

    def task(self, part: str, **more: Any) -> dict[str, Any]:
        """A request to recorded.py."""
        request = {"part": part, "function": self.function, **more}
        return request if part == "answer" else {**request, "reference": self.reference, "asserts": self.asserts}

    def calls(self) -> list[Any]:
        """Arguments of each call. Raises `Ungradable`."""
        with self._lock:
            if self._calls is None:
                outcome, reply = _run(self.task("record"))
                if reply is None:
                    raise Ungradable(
                        "the reference solution does not pass the tests of its own row, or takes arguments that "
                        f"cannot be serialized ({ENDINGS.get(outcome.status, 'no reply')})"
                    )
                self._calls = reply
            return self._calls


def what_fails(problem: BenchmarkProblem, source: str) -> str | None:
    """The first call whose result fails the asserts, None if all hold."""
    tests: Tests = problem.tests
    calls = tests.calls()
    if not calls:
        return "the asserts do not call a function"
    outcome, results = _run(
        tests.task("answer", source=f"{tests.prefix}\n{source}", classes=tests.classes, calls=calls)
    )
    if not isinstance(results, list) or len(results) != len(calls):
        return f"the program has no answers: {ENDINGS.get(outcome.status, 'it ended early')}"
    outcome, failed = _run(tests.task("replay", results=results))
    if outcome.status == "ok" and outcome.stdout.strip() == "null":
        return None
    number = failed if isinstance(failed, int) and 1 <= failed <= len(calls) else 1
    result = results[number - 1]
    parts = {
        "Input": call_for_people(tests.function, *calls[number - 1]),
        "Expected": tests.asserts.strip("\n"),
        "Got": "an error"
        if result is None
        else for_people(result[0] if isinstance(result, list) and result else result),
    }
    shown = listed({name: shortened(value) for name, value in parts.items()})
    return f"call {number} of {len(calls)}: wrong answer{shown}"


JUDGE = judge_with(what_fails)


def _run(task: Mapping[str, Any]) -> tuple[Outcome, Any]:
    """The outcome, and the printed reply, or None."""
    harness = resources.files("open_r1.evaluation.code").joinpath("recorded.py").read_text("utf-8")
    outcome = JUDGING.run(python_program(harness), LIMITS, json.dumps(task))
    try:
        return outcome, json.loads(outcome.stdout) if outcome.status == "ok" else None
    except (ValueError, RecursionError):
        return outcome, None


def call_for_people(function: str, args: Any, kwargs: Any) -> str:
    """A call as Python source; the arguments are a packed tuple and a packed dictionary."""
    try:
        shown = [*map(_shown, args[1]), *(f"{key[1][0]}={_shown(key[1][1])}" for key in kwargs[1])]
        return f"{function}({', '.join(shown)})"
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return f"{function}: {json.dumps([args, kwargs])}"


def for_people(packed: Any) -> str:
    """A packed value as Python source. A value that recorded.py did not pack is shown as JSON."""
    try:
        return _shown(packed)
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return json.dumps(packed)


def _shown(packed: Any) -> str:
    if not isinstance(packed, list):
        return repr(packed)
    kind, content = packed
    if isinstance(content, str):
        return content
    if kind == "dict":
        return "{" + ", ".join(f"{_shown(key)}: {_shown(value)}" for _, (key, value) in content) + "}"
    if kind == "object":
        return f"{content[0]} with {_shown(content[1])}"
    inner = ", ".join(map(_shown, content))
    return {"list": f"[{inner}]", "tuple": f"({inner}{',' * (len(content) == 1)})"}.get(kind, f"{{{inner}}}")


def _humaneval(index: int, row: Mapping[str, Any], at: str) -> BenchmarkProblem:
    text = partial(required_text, row, at=at)
    prompt, function = text("prompt"), text("entry_point")
    head = _before(prompt, function)
    asserts = f"{text('test')}\ncheck({function})"
    tests = Tests(function, f"{prompt}{text('canonical_solution')}", asserts, head)
    problem = prompt.removeprefix(head).strip()
    return _problem(index, text("task_id"), problem, COMPLETE.format(problem=prompt), tests)


def _mbpp(index: int, row: Mapping[str, Any], at: str) -> BenchmarkProblem:
    problem = required_text(row, "prompt" if "prompt" in row else "text", at)
    code, listed = required_text(row, "code", at), row.get("test_list")
    if not isinstance(listed, list) or not all(isinstance(test, str) for test in listed) or not listed:
        raise UserError(f"{at}, column test_list: expected a list of asserts.")
    setup = "\n".join([*(row.get("test_imports") or []), row.get("test_setup_code") or ""])
    asserts = f"{setup}\n{row.get('test') or chr(10).join(listed)}"
    function = _called(code, listed, at)
    prompt = WRITE.format(problem=problem, function=function, example=listed[0])
    tests = Tests(function, code, asserts, classes=_classes(code, [setup, *listed], at))
    return _problem(index, required_text(row, "task_id", at), problem, prompt, tests)


def _problem(index: int, id: str, problem: str, prompt: str, tests: Tests) -> BenchmarkProblem:
    digest = hashlib.sha256(f"{tests.reference}\0{tests.asserts}".encode()).hexdigest()
    gold = f"asserts, SHA-256 {digest[:12]}"
    return BenchmarkProblem(index, id, problem, prompt, gold, JUDGE, tests=tests)


def _before(prompt: str, function: str) -> str:
    """Imports and helpers before the function in a prompt."""
    return prompt.partition(f"def {function}(")[0]


def _classes(code: str, asserts: Sequence[str], at: str) -> str:
    """Source of the classes of `code` that the asserts name."""
    nodes = [node for text in asserts for node in ast.walk(_parsed(text, at))]
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    made = [node for node in _parsed(code, at).body if isinstance(node, ast.ClassDef) and node.name in named]
    return "\n".join(map(ast.unparse, made))


def _parsed(source: str, at: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{at}, columns code and test_list: not Python ({error.msg}).") from error


def _called(code: str, tests: Sequence[str], at: str) -> str:
    """The last function of `code` that the tests call."""
    made = [node.name for node in _parsed(code, at).body if isinstance(node, ast.FunctionDef)]
    calls = [node for test in tests for node in ast.walk(_parsed(test, at)) if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    found = [name for name in made if name in called]
    if not found:
        raise UserError(f"{at}, column test_list: it calls no function of the column code.")
    return found[-1]
