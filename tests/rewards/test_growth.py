r"""Nothing in the calling process grows faster than linearly with the completion.

Every regular expression of the room is fed inputs of its own kind that grow: runs of what it repeats, of spaces, of
digits, of brackets that never close. What runs on answers, which are cut at `MAX_ANSWER`, may be quadratic up to there.
"""

import importlib
import pkgutil
import re
import time
from concurrent.futures import Future

import pytest

import open_r1.rewards
from open_r1.rewards import (
    accuracy_reward,
    format_lenient_reward,
    format_reward,
    get_repetition_penalty_reward,
    reasoning_steps_reward,
    tag_count_reward,
)
from open_r1.rewards.answers import MAX_COUNTED, MAX_GAP, WINDOW
from open_r1.rewards.grader import MAX_ANSWER, Grader
from open_r1.rewards.pool import Reply
from open_r1.rewards.quantity import MAX_DIGITS

UNBOUNDED = {"answers", "choices", "format", "reasoning_steps", "tag_count", "programs"}
"""Modules whose expressions see a whole completion, or its last `WINDOW` characters."""
RUNS = [
    " ", "\n", "\t", "1", "1,", "1.", "a", "A", "a ", "Ab ", "$", "$ ", "$$", "\\", "\\!", "\\,", "{", "}",
    "{}", "(", ")", "[", "(a", "( ", "|", "_", "*", "**", "#", ",", ", ", ";", "<", "=", "a=", "a_1=", "^",
    "^{", "\\circ", "°", "1°", "\\text{", "\\text{a}", "\\text ", "\\boxed{", "\\boxed ", "\\frac",
    "\\frac{1}{", "\\sqrt", "\\pm", "\\pi", "\\in ", "\\begin{pmatrix}", "\\\\", "\\\\[", "&", "answer ",
    "answer is", "answer:", "is ", "and ", "or ", "not ", "for all ", "\\(", "\\)", "\\[", "\\{", "\\{x|",
    "\\cup", "1 000 ", "000 ", " 1/", "/", "%", "'", "f(", "Step 1", "First,", "1. ", "<answer>", "<think>",
    "</think>", "```python\n", "```", "①", "√", "²", "x^(", "sqrt(", "log(", "log ", "-", "1 to ",
    "1 apples and ", "A. ", "(A) ", "option ", "x \\mid ", "x:", ":", "a:", "a b:", "\\ne", "\\mathbb", "  a",
    "答案", "，",
]  # fmt: skip
HEADS = ["", "5", "\\text{", "answer: 5"]
SHORT = {"answers._JOINT": MAX_GAP, "answers._COUNTED": MAX_COUNTED, "quantity._SCIENTIFIC": 2 * MAX_DIGITS}
"""Expressions that only see strings that short."""


def patterns():
    found = []
    for package in (open_r1.rewards, importlib.import_module("open_r1.rewards.code")):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if info.name.endswith((".algebra", ".precise", ".worker")):
                continue  # in a worker, where limits hold
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    found.append(pytest.param(info.name.rpartition(".")[2], name, value, id=f"{info.name[16:]}.{name}"))
    return found


def seconds(pattern, text):
    start = time.process_time()
    for _ in pattern.finditer(text):
        pass
    pattern.match(text)
    pattern.fullmatch(text)
    return time.process_time() - start


@pytest.mark.parametrize(("module", "name", "pattern"), patterns())
def test_an_expression_takes_linear_time(module, name, pattern):
    """What took long is tried with ten times as much; a quadratic expression would take a hundred times as long."""
    length = SHORT.get(f"{module}.{name}", WINDOW if module in UNBOUNDED else MAX_ANSWER)
    for head in HEADS:
        for run in RUNS:
            text = head + run * (length // 10 // len(run)) + "x"
            if seconds(pattern, text) > 0.001:
                long = head + run * (length // len(run)) + "x"
                assert min(seconds(pattern, long) for _ in range(3)) < 0.2, (head, run)


class NoWorkers:
    """Stands in for the pool, so that only the calling process works."""

    seconds, memory_mb = 1.0, 1

    def submit(self, request):
        future = Future()
        future.set_result(Reply(None))
        return future

    def close(self):
        pass


FRAMES = ["\\boxed{%s}", "%s", "The answer is %s", "<answer>%s</answer>"]


@pytest.mark.parametrize("frame", FRAMES)
def test_grading_takes_linear_time_in_the_calling_process(frame):
    grader = Grader(workers=1)
    grader.pool = NoWorkers()

    def cpu(completion):
        start = time.process_time()
        grader.grade_many(completions=[completion] * 2, golds=["5", "x<5"])
        return time.process_time() - start

    for run in RUNS:
        for length in (MAX_ANSWER, WINDOW):
            text = frame.replace("%s", run * (length // len(run) - 2) + "x")
            assert min(cpu(text + " " * n) for n in range(2)) < 1.0, run


@pytest.mark.parametrize(
    "run", ["\n", " ", "1 ", "a", "<think>\n", "</think>", "Step 1: ", "- ", "First, ", "\u2800", "$"]
)
def test_a_megabyte_takes_less_than_a_second(run):
    completion = run * (1_000_000 // len(run)) + "x"
    for reward in (format_reward, format_lenient_reward, tag_count_reward, reasoning_steps_reward, accuracy_reward):
        keywords = {"solution": ["5"]} if reward is accuracy_reward else {}
        start = time.process_time()
        reward([completion], **keywords)
        assert time.process_time() - start < 1.0, reward.__name__
    start = time.process_time()
    get_repetition_penalty_reward(3, -1.0)([completion])
    assert time.process_time() - start < 1.0
