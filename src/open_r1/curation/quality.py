"""Defects of completions regardless of their answer: loops, and scripts that the problem does not use."""

import re
import zlib

WINDOWS = (1_000, 4_000, 16_000)
"""Window sizes in characters: short loops show in short windows, long ones need long windows."""
LOOP = 0.15
"""A stretch that compresses to less than this share of its size repeats itself. Real traces compress to 0.25 or
more, a repeated sentence to 0.1 or less."""
SCRIPTS = {
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "Japanese": "\u3040-\u30ff",
    "Korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Cyrillic": "\u0400-\u052f",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u05d0-\u05ea",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}
"""Latin and Greek letters occur in every formula."""
_SCRIPTS = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}


def is_loop(text: str) -> bool:
    """Whether a part of `text` repeats itself over and over."""
    content = text.encode(errors="replace")
    for window in WINDOWS:
        step = window // 2
        for start in range(0, max(1, len(content) - step), step):
            stretch = content[start : start + window]
            if len(stretch) >= WINDOWS[0] // 2 and len(zlib.compress(stretch)) < LOOP * len(stretch):
                return True
        if len(content) <= window:
            break
    return False


def foreign_letters(text: str, problem: str) -> int:
    """The number of letters in scripts that `problem` does not use."""
    if text.isascii():
        return 0
    return sum(
        len(found) for script in _SCRIPTS.values() if (found := script.findall(text)) and not script.search(problem)
    )
