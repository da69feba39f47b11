"""Whatever a completion holds, a verdict comes within the limit. `OPEN_R1_FUZZ_EXAMPLES=20000 pytest -s` runs long."""

import os
import time
from collections import Counter

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the dev extra")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from open_r1.rewards.grader import Grader, Verdict  # noqa: E402

EXAMPLES = int(os.environ.get("OPEN_R1_FUZZ_EXAMPLES", "40"))
SECONDS = 1.0

numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.sampled_from(["0", "10^{9}", "9" * 50, "1,234", "0.5", "-1", "10^{10^{10}}", "50\\%", "1e9", "007"]),
)
atoms = st.one_of(
    numbers,
    st.sampled_from(
        ["x", "y", "n", "\\pi", "e", "i", "\\infty", "\\theta", "\\emptyset", "\\text{cm}", "\\text{(A)}", ""]
    ),
)


def combine(inner):
    pair = st.tuples(inner, inner)
    templates = [
        "\\frac{%s}{%s}", "%s^{%s}", "%s+%s", "%s-%s", "%s %s", "%s\\cdot %s", "\\binom{%s}{%s}", "(%s,%s)", "[%s,%s)",
        "\\{%s,%s\\}", "%s=%s", "%s<%s", "%s\\cup %s", "\\sum_{k=1}^{%s} %s", "\\prod_{k=1}^{%s} %s", "\\log_{%s} %s",
        "\\int_0^{%s} %s dx", "%s \\text{ and } %s", "%s \\pm %s", "\\sqrt[%s]{%s}", "%s \\mod %s", "%s_{%s}", "%s/%s",
        "\\lim_{x \\to %s} %s", "\\begin{pmatrix}%s\\\\%s\\end{pmatrix}",
    ]  # fmt: skip
    single = ["\\sqrt{%s}", "(%s)", "\\sin %s", "%s!", "|%s|", "\\boxed{%s}", "{%s", "%s}", "$%s$", "-%s", "\\ln(%s)"]
    return st.one_of(
        st.tuples(st.sampled_from(templates), pair).map(lambda t: t[0] % t[1]),
        st.tuples(st.sampled_from(single), inner).map(lambda t: t[0] % t[1]),
    )


latex = st.recursive(atoms, combine, max_leaves=25)
anything = st.text(st.characters(), max_size=200)
answers = st.one_of(latex, anything, st.tuples(latex, anything).map("".join))
frames = st.sampled_from(
    ["\\boxed{%s}", "%s", "<answer>%s</answer>", "The answer is $%s$.", "<think>%s</think>\\boxed{%s}", "#### %s"]
)


def test_a_verdict_always_comes_within_the_limit():
    grader = Grader(workers=2, seconds=SECONDS)
    seen: Counter = Counter()
    slowest = 0.0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES <= 100,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(frames, answers, st.one_of(latex, st.just("5")))
    def one(frame, answer, gold):
        nonlocal slowest
        completion = frame.replace("%s", answer)
        start = time.monotonic()
        verdict = grader.grade_many(completions=[completion], golds=[gold])[0]
        slowest = max(slowest, time.monotonic() - start)
        assert isinstance(verdict, Verdict) and verdict.correct in (True, False, None)
        seen[(verdict.correct, verdict.reason)] += 1

    one()
    ended = grader.grade_many(completions=[r"\boxed{\sqrt{8}}"], golds=[r"2\sqrt{2}"])[0]
    grader.close()
    assert ended.correct is True
    assert not any("ended its worker" in reason for _, reason in seen)
    print(f"\n{sum(seen.values())} inputs, slowest {slowest:.1f} s", *sorted(map(str, seen.items())), sep="\n  ")
