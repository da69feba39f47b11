"""Turns a completion into an assistant message for training: reasoning between think tags, then the answer."""

OPEN, CLOSE = "<think>", "</think>"


def with_think_marks(completion: str, extracted: str) -> str | None:
    """`<think>`, the reasoning, `</think>`, the answer. None if there is no reasoning or it does not end.

    Existing tags stay, even if the prompt contained the opening one. In text without tags, the paragraph with the last
    box is the answer, and everything before it is reasoning. If nothing precedes it, or there is no box, all of the
    text is reasoning, and `extracted`, the final answer, follows in a box.
    """
    text = completion.strip()
    if CLOSE in text:
        reasoning, _, answer = text.rpartition(CLOSE)
        reasoning = reasoning.strip().removeprefix(OPEN)
    elif OPEN in text:
        return None
    else:
        reasoning, answer = _split(text)
        answer = answer or f"\\boxed{{{extracted}}}"
    reasoning, answer = reasoning.strip(), answer.strip()
    if not reasoning or not answer:
        return None
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n{answer}"


def _split(text: str) -> tuple[str, str]:
    box = text.rfind("\\boxed")
    start = text.rfind("\n\n", 0, max(0, box))
    return (text, "") if box < 0 or start < 0 else (text[:start], text[start:])
