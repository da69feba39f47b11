"""Compares our verdicts with those of LiveCodeBench's own checker, on outputs made to be hard to compare.

git clone https://github.com/LiveCodeBench/LiveCodeBench
python scripts/compare_livecodebench.py LiveCodeBench

What the programs print and return is drawn at random from numbers in many notations, white space of every kind, and
values of many types; blocks of code are drawn from lines with and without fences.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import random
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from open_r1.evaluation.code.judging import last_program
from open_r1.evaluation.code.livecodebench import result_of
from open_r1.rewards.code.comparing import same_json, same_numbers
from open_r1.run.entry import exit_with_sentence

TOKENS = (
    *("1", "1.0", "01", "+1", "-0", "0", "1e0", "10e-1", "1_0", "nan", "sNaN", "inf", "Infinity", "0x1", "a", "A", "½"),
    *("50000000000000000", "50000000000000001", "0.1", "0.10000000000000001", "1e999999999", "1E+2", "100", ".5", "1,"),
)
SPACES = (" ", "  ", "\t", "\n", "\n\n", "\r\n", " \n", "\x0b", "\x0c", "\x1c", "\u2028", "\xa0", "\x85", "\r")
LINES = ("```python", "```", "  ```", "print(1)", "text", "a ```b``` c", "1. ```py", "````", "~~~", "", "> ```")
VALUES = (
    *("1", "True", "1.0", "'a'", "None", "[1, 2]", "(1, 2)", "[(1, 2)]", "[[1, 2]]", "((1, 2),)", "{'a': 1}", "{1: 1}"),
    *("{'a': (1,)}", "{1, 2}", "[]", "()", "''", "float('nan')", "float('inf')", "0.1 + 0.2", "0.3", "range(2)"),
    *("deque([1, 2])", "Counter('a')", "OrderedDict(a=1)", "b'a'", "[None]", "iter([1, 2])", "10**30", "-0.0", "[()]"),
    *("numpy.int64(1)", "[numpy.int64(1), 2]", "numpy.array([1, 2])", "numpy.float64(0.3)"),
)
GOLDS = (
    *("1", "1.0", "true", '"a"', "null", "[1, 2]", "[[1, 2]]", '{"a": 1}', '{"1": 1}', '{"a": [1]}', "[]", '""'),
    *("[0, 1]", "NaN", "Infinity", "0.30000000000000004", "0.3", "1000000000000000000000000000000", "0", "[[]]"),
)
FUNCTION = "import numpy\nclass Solution:\n    def f(self, n):\n        return {value}"
Asked = tuple[str, str, str | None]
"""A program, the output that is expected, and the function that is called."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what both say differently, and how much was compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of LiveCodeBench")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=4000, help="printed outputs, and texts with blocks")
    options = parser.parse_args(argv)
    rng = random.Random(options.seed)

    printed = [_outputs(rng) for _ in range(options.count)]
    ours = [same_numbers(got, expected) for expected, got in printed]
    asked: list[Asked] = [(f"import sys\nsys.stdout.write({got!r})", expected, None) for expected, got in printed]
    _say("printed outputs", printed, ours, _theirs(options.checkout, asked))

    returned = list(itertools.product(GOLDS, VALUES))
    replies = {value: result_of(FUNCTION.format(value=value), "f", "1") for value in VALUES}
    ours = [same_json(replies[value], gold) for gold, value in returned]
    asked = [(FUNCTION.format(value=value), gold, "f") for gold, value in returned]
    _say("returned values", returned, ours, _theirs(options.checkout, asked))

    extract = _extraction(options.checkout)
    texts = ["\n".join(rng.choices(LINES, k=rng.randrange(9))) for _ in range(options.count)]
    _say("blocks", texts, [last_program(text) for text in texts], [extract(text) for text in texts])


def _outputs(rng: random.Random) -> tuple[str, str]:
    """An expected output, and one that is like it."""
    expected = "".join(rng.choice(TOKENS) + rng.choice(SPACES) for _ in range(rng.randrange(5)))
    got = expected
    for _ in range(rng.randrange(3)):
        got = got.replace(rng.choice(TOKENS + SPACES), rng.choice(TOKENS + SPACES), 1)
    return expected, got


def _say(what: str, cases: Sequence[Any], ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    differ = [case for case, one, other in zip(cases, ours, theirs, strict=True) if one != other]
    for case in differ:
        print(f"differs: {case!r}")
    print(
        f"{what}: {len(cases):,} compared, {sum(map(bool, theirs)):,} right or found, {len(differ)} differ", flush=True
    )


def _theirs(checkout: Path, asked: Sequence[Asked]) -> list[bool]:
    """Their verdicts, from a process of its own: their guard takes functions away from the process it runs in."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_theirs, args=(checkout, asked, sender))
    process.start()
    sender.close()
    verdicts: list[bool] = receiver.recv()
    process.kill()
    return verdicts


def _run_theirs(checkout: Path, asked: Sequence[Asked], sender: Any) -> None:
    sys.set_int_max_str_digits(50000)
    checker = _module(checkout / "lcb_runner" / "evaluation" / "testing_util.py")
    checker.reliability_guard = lambda *_: None
    verdicts = []
    for program, expected, function in asked:
        sample = {"inputs": ["1"], "outputs": [expected], "fn_name": function}
        results, _ = checker.run_test({"input_output": json.dumps(sample)}, test=program)
        verdicts.append(
            bool(results) and all(isinstance(result, int | numpy.bool_) and result > 0 for result in results)
        )
    sender.send(verdicts)


def _extraction(checkout: Path) -> Any:
    styles = types.ModuleType("lcb_runner.lm_styles")
    styles.LMStyle = types.SimpleNamespace(CodeLLaMaInstruct=1, GenericBase=2)  # type: ignore[attr-defined]
    sys.modules |= {"lcb_runner": types.ModuleType("lcb_runner"), "lcb_runner.lm_styles": styles}
    extract = _module(checkout / "lcb_runner" / "utils" / "extraction_utils.py").extract_code

    def found(text: str) -> str | None:
        program = extract(text, None)
        return program if program.strip() else None

    return found


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    exit_with_sentence(main)
