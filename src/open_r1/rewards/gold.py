"""A completion that should get the maximum of every reward. It is used to check a run before it starts."""

from open_r1.rewards.answers import extract_gold
from open_r1.rewards.text import prefill_of


def gold_completion(gold: str, *, prompt: str | list = "") -> str:
    """An ideal completion: three steps of reasoning, then the boxed gold answer, in the R1 template.

    If `prompt` (rendered text, or messages) has already opened the think block, the completion continues from there.
    """
    answer = extract_gold(gold).strip().strip("$")
    text = (
        "<think>\nFirst, read the problem. Next, solve it. Finally, check the answer.\n</think>\n"
        f"<answer>\n\\boxed{{{answer}}}\n</answer>"
    )
    prefill = prefill_of(prompt)
    if not prefill:
        return text
    return text.removeprefix("<think>\n") if prefill.endswith("\n") else text.removeprefix("<think>")
