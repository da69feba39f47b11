"""The reason of a verdict: how the answer was compared, and which heuristics were used.

A verdict without heuristics compared a whole boxed answer (or answer block).
"""

from functools import lru_cache

from open_r1.rewards import conditions, names, quantity
from open_r1.rewards.notation import clean

PLAIN = "compared as text or number"
ALGEBRA = "compared with algebra"
PLACES = {
    "sentence": "the answer was taken from a sentence",
    "last line": "the answer was taken from the last line",
    "last value": "the answer was taken to be the last value",
}


def reason(how: str, place: str, answer: str, gold: str) -> str:
    """`how`, and the heuristics used: `compared as text or number; heuristic: a unit on one side only`."""
    heuristics = [PLACES[place]] if place in PLACES else []
    if not (answer.isdigit() and gold.isdigit()):
        heuristics += _of_pair(answer, gold)
    return f"{how}; heuristic: {', '.join(heuristics)}" if heuristics else how


@lru_cache(maxsize=65_536)
def _of_pair(answer: str, gold: str) -> tuple[str, ...]:
    if answer == gold:
        return ()
    found = []
    one, other = quantity.measured(answer), quantity.measured(gold)
    if (one[1] is None) != (other[1] is None):
        found.append("a unit on one side only")
    elif one[1] and other[1] and not (one[1].dimension and other[1].dimension):
        found.append("units compared as words")
    if ("%" in answer) != ("%" in gold):
        found.append("percent on one side only")
    texts = clean(answer), clean(gold)
    if (names.split(texts[0]).name is None) != (names.split(texts[1]).name is None):
        found.append("a name on one side only")
    if any(conditions.split(text).stripped for text in texts):
        found.append("a condition was left out")
    return tuple(found)
