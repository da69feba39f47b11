"""Runs inside the sandbox, under the system's interpreter: one of the three parts of judging a function by asserts.

The asserts hold what is expected, so that a program beside them could read it, or make them true. Therefore:

1. `record` runs the asserts on the reference solution, and notes the arguments of each call of the function;
2. `answer` runs the program, which sees these arguments alone, and notes what it returns;
3. `replay` runs the asserts on these results.

What passes between the parts is JSON, in which a value that JSON lacks is a list that begins with its type. Only the
standard library may be imported here.
"""

import json
import os
import random
import sys
from typing import Any

PLAIN = (type(None), bool, int, str)


class Unknown(Exception):
    """A value of a type that cannot be passed on."""


def pack(value: Any) -> Any:
    """A value as JSON. Raises Unknown."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (float, complex):
        return [kind.__name__, repr(value)]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind is dict:
        return ["dict", [[pack(key), pack(item)] for key, item in value.items()]]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [pack(item) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[pack(key), pack(item)] for key, item in dict.items(value)]]
    raise Unknown(kind.__name__)


def unpack(value: Any) -> Any:
    """The value that was packed."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind in ("float", "complex"):
        return {"float": float, "complex": complex}[kind](content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {unpack(key): unpack(item) for key, item in content}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](map(unpack, content))


def run(source: str, name: str, space: dict[str, Any]) -> None:
    """Runs `source` in `space`."""
    exec(compile(source, name, "exec"), space)


def record(task: dict[str, Any]) -> list[Any]:
    """Arguments of each call that the asserts make, with the reference solution."""
    space: dict[str, Any] = {"__name__": "reference"}
    calls: list[Any] = []
    run(task["reference"], "reference.py", space)
    inner = space[task["function"]]

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append([pack(args), pack(kwargs)])
        return inner(*args, **kwargs)

    check(task, space, recorded)
    return calls


def answer(task: dict[str, Any]) -> list[Any]:
    """What the program returns to each call; null where it raises or returns something odd."""
    space: dict[str, Any] = {"__name__": "program"}
    results: list[Any] = []
    run(task["source"], "program.py", space)
    function = space[task["function"]]
    for args, kwargs in task["calls"]:
        try:
            results.append([pack(function(*unpack(args), **unpack(kwargs)))])
        except Exception:
            results.append(None)
    return results


def replay(task: dict[str, Any]) -> "int | None":
    """The number of the call whose result fails, from 1; null if all asserts hold."""
    space: dict[str, Any] = {"__name__": "reference"}
    results, count = task["results"], 0
    run(task["reference"], "reference.py", space)

    def replayed(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        result = results[count - 1]
        if result is None:
            raise ValueError("the program raised an error")
        return unpack(result[0])

    try:
        check(task, space, replayed)
    except Exception:
        return max(count, 1)
    return None


def check(task: dict[str, Any], space: dict[str, Any], function: Any) -> None:
    """Runs the asserts on `function`, which also takes the place of the reference under its name."""
    random.seed(0)
    space[task["function"]] = function
    run(task["asserts"], "asserts.py", space)
    if "check" in space:
        space["check"](function)


def main() -> None:
    """Reads a task from standard input and prints the reply, whatever else is printed in between."""
    task = json.loads(sys.stdin.read())
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.setrecursionlimit(50000)
    replies.write(json.dumps({"record": record, "answer": answer, "replay": replay}[task["part"]](task)))
    replies.flush()


if __name__ == "__main__":
    main()
