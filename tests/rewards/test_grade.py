"""`grade`: one completion against one answer."""

import pytest

from open_r1 import UserError, grade


@pytest.mark.parametrize(
    ("completion", "answer", "correct"),
    [
        ("<think>\nhalf\n</think>\n<answer>\n0.5\n</answer>", "1/2", True),
        ("It is \\boxed{12}.", 12, True),
        ("It is \\boxed{12}.", 12.5, False),
        ("I do not know.", "12", False),
        ("\\boxed{12}", "", None),
    ],
)
def test_a_completion_is_right_wrong_or_cannot_be_decided(completion, answer, correct):
    assert grade(completion, answer).correct is correct


def test_what_was_found_is_told():
    assert grade("First 3, then \\boxed{4}.", "5").extracted == "4"


@pytest.mark.parametrize(
    ("completion", "answer", "said"),
    [
        ([{"role": "assistant", "content": "7"}], "7", "completion is a list: expected text"),
        ("7", None, "answer is a NoneType: expected text or a number"),
        ("7", True, "answer is a bool: expected text or a number"),
    ],
)
def test_what_is_no_text_is_refused(completion, answer, said):
    with pytest.raises(UserError, match=said):
        grade(completion, answer)
