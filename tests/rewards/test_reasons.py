import pytest

from open_r1.rewards import grade


@pytest.mark.parametrize(
    ("completion", "gold", "heuristic"),
    [
        (r"\boxed{5}", "5", None),
        ("<answer>5</answer>", "5", None),
        (r"\boxed{2\sqrt2}", r"\sqrt8", None),
        (r"\boxed{5\text{ cm}}", "5", "a unit on one side only"),
        (r"\boxed{5\text{ red apples}}", "5 apples", "units compared as words"),
        (r"\boxed{500\text{ cm}}", r"5\text{ m}", None),
        (r"\boxed{x=5}", "5", "a name on one side only"),
        (r"\boxed{50\%}", "0.5", "percent on one side only"),
        (r"\boxed{f(x)=x \text{ for all real } x}", "f(x)=x", "a condition was left out"),
        ("The answer is 5.", "5", "the answer was taken from a sentence"),
        ("It is this.\n\nC", "C", "the answer was taken from the last line"),
        ("3 + 4 = 7", "7", "the answer was taken to be the last value"),
    ],
)
def test_a_verdict_says_which_heuristic_it_rests_on(completion, gold, heuristic):
    verdict = grade(completion, gold)
    assert verdict.correct is True
    assert verdict.reason.partition("; heuristic: ")[2] == (heuristic or "")
