"""Whether the completion reasons in separate steps."""

import re
from typing import Any

from open_r1.rewards.text import texts_of

_STEP = re.compile(r"Step \d+:|^\d+\.|^[-*]|\b(?:First|Second|Next|Finally),", re.MULTILINE)


def reasoning_steps_reward(completions: list, **kwargs: Any) -> list[float]:
    """1/3 for each marked step (`Step 1:`, a list item, `First,` ... `Finally,`), at most 1.0."""
    return [min(1.0, len(_STEP.findall(text)) / 3) for text in texts_of(completions)]
