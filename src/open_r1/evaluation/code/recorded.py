"""Runs inside the sandbox, under the system's interpreter: one of the three parts of judging a function by asserts.

The asserts contain the expected results. A program in the same process could read them, or make them true. Therefore:

1. `record` runs the asserts on the reference solution, and records the arguments of each call of the function.
2. `answer` runs the program, which sees only these arguments, and records its return values.
3. `replay` runs the asserts on these values.

The parts exchange JSON. A value that JSON does not have is a list that begins with its type. An object of a class of
the reference is passed by its attributes, and the program gets the source of that class. Only the standard library may
be imported here.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

LONG = 1 << 2000
"""Integers from here on are passed on in hexadecimal, for which Python has no limit of digits."""
SEQUENCES: "tuple[Any, ...]" = (list, tuple, set, frozenset)


class Unknown(Exception):
    """A value of a type that cannot be passed on."""


class Other:
    """Stands for a value of a type that cannot be passed on: something, and equal to nothing."""


def pack(value: Any, own: "tuple[type, ...]" = ()) -> Any:
    """A value as JSON; one of a subclass as its base. `own` are classes of the reference. Raises Unknown."""
    if value is None or isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, int):
        return int(value) if -LONG < value < LONG else ["int", hex(value)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return ["float", float.__repr__(value)]
    if isinstance(value, complex):
        return ["complex", complex.__repr__(value)]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, type) and value.__module__ == "builtins":
        return ["type", value.__name__]
    if isinstance(value, dict):
        return ["dict", [pack(list(item), own) for item in dict.items(value)]]
    for base in SEQUENCES:
        if isinstance(value, base):
            return [base.__name__, [pack(item, own) for item in base.__iter__(value)]]
    if isinstance(value, range):
        return ["range", [value.start, value.stop, value.step]]
    if isinstance(value, Iterator):
        return ["iterator", [pack(item, own) for item in value]]
    if isinstance(value, own):
        return ["object", [type(value).__name__, pack(vars(value), own)]]
    raise Unknown(type(value).__name__)


def unpack(value: Any, space: "dict[str, Any]") -> Any:
    """The value that was packed; classes are those of `space`."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind in ("float", "complex"):
        return {"float": float, "complex": complex}[kind](content)
    if kind == "int":
        return int(content, 16)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "other":
        return Other()
    if kind == "range":
        return range(*content)
    if kind == "iterator":
        return iter([unpack(item, space) for item in content])
    if kind == "type":
        return getattr(__import__("builtins"), content)
    if kind == "object":
        made = object.__new__(space[content[0]])
        made.__dict__.update(unpack(content[1], space))
        return made
    return {base.__name__: base for base in (dict, *SEQUENCES)}[kind](unpack(item, space) for item in content)


def run(source: str, name: str, space: "dict[str, Any]") -> "dict[str, Any]":
    """`space`, in which `source` has run."""
    exec(compile(source, name, "exec"), space)
    return space


def reference_of(task: "dict[str, Any]") -> "dict[str, Any]":
    """What the reference solution defines."""
    return run(task["reference"], "reference.py", {"__name__": "reference"})


def record(task: "dict[str, Any]") -> "list[Any]":
    """Arguments of each call that the asserts make, with the reference solution."""
    space = reference_of(task)
    inner = space[task["function"]]
    own = tuple(made for made in space.values() if isinstance(made, type) and made.__module__ == "reference")
    calls: list[Any] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append([pack(args, own), pack(kwargs, own)])
        state = random.getstate()  # in `replay`, the reference draws no numbers
        result = inner(*args, **kwargs)
        random.setstate(state)
        return result

    check(task, space, recorded)
    return calls


def answer(task: "dict[str, Any]") -> "list[Any]":
    """What the program returns to each call; null where it raises."""
    space = run(task["source"], "program.py", run(task["classes"], "classes.py", {"__name__": "program"}))
    results: list[Any] = []
    function = space[task["function"]]
    for args, kwargs in task["calls"]:
        try:
            result = function(*unpack(args, space), **unpack(kwargs, space))
            try:
                results.append([pack(result)])
            except Unknown as error:
                results.append([["other", str(error)]])
        except Exception:
            results.append(None)
    return results


def replay(task: "dict[str, Any]") -> "int | None":
    """The number of the call whose result fails, from 1; null if all asserts hold."""
    space = reference_of(task)
    results, count = task["results"], 0

    def replayed(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        result = results[count - 1]
        if result is None:
            raise ValueError("the program raised an error")
        return unpack(result[0], space)

    try:
        check(task, space, replayed)
    except Exception:
        return max(count, 1)
    return None


def check(task: "dict[str, Any]", reference: "dict[str, Any]", function: Any) -> None:
    """Runs the asserts on `function`, in a copy of what the reference defines: its own calls of itself stay its own."""
    random.seed(0)
    run(task["asserts"], "asserts.py", {**reference, task["function"]: function})


def main() -> None:
    """Reads a task from standard input and prints the reply, whatever else is printed in between."""
    task = json.loads(sys.stdin.read())
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.setrecursionlimit(50000)
    sys.set_int_max_str_digits(0)
    replies.write(json.dumps({"record": record, "answer": answer, "replay": replay}[task["part"]](task)))
    replies.flush()


if __name__ == "__main__":
    main()
