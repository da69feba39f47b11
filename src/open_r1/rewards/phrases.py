"""The meaning of phrases in answers: no solution, options of a choice, times of day, ratios."""

import re
from fractions import Fraction

_SAME = {
    "no solution": "emptyset nosolution nosolutions norealsolution norealsolutions therearenosolutions "
    "therearenorealsolutions thereisnosolution nosolutionexists nosolutionsexist none emptyset theemptyset noroots "
    "norealroots",
    "undefined": "dne doesnotexist undefined notdefined thelimitdoesnotexist limitdoesnotexist isundefined",
    "all real numbers": "mathbbr reals therealnumbers realnumbers allreals allrealnumbers allrealx xinmathbbr "
    "inftyinfty xininftyinfty",
    "endless": "infinitelymany infinitelymanysolutions infinitesolutions aninfinitenumberofsolutions",
}
_MEANING = {phrase: meaning for meaning, phrases in _SAME.items() for phrase in phrases.split()}
_EMPTY = re.compile(r"\\\{\s*\\\}")
_TIME = re.compile(r"(?=.*[:ap])(\d{1,2})(?::([0-5]\d)(?::([0-5]\d))?)?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_RATIO_PART = r"[^:=<>,()\[\]]+"
_RATIO = re.compile(rf"{_RATIO_PART}(?::{_RATIO_PART})+")


def meaning(text: str) -> str | None:
    """The meaning of a stock phrase (plain text or LaTeX): `no solution` also for `\\emptyset`; None for other text."""
    if len(text) > 60:
        return None
    text = _EMPTY.sub("emptyset", text)
    if r"\{" in text:
        return None  # `{\emptyset}` is not empty
    if not re.search(r"[A-Za-z]{3}", text) or re.search(r"\d", text):
        return None
    if re.fullmatch(r"\(\s*-\s*\\infty\s*,\s*\+?\s*\\infty\s*\)", re.sub(r"^.*\\in(?![a-z])\s*", "", text)):
        return "all real numbers"
    folded = re.sub(r"[\W_]+", "", text).casefold()
    return None if "infty" in folded else _MEANING.get(folded)


def same_meaning(answer: str, gold: str) -> bool | None:
    """Compares two stock phrases; None unless both are stock phrases."""
    one, other = meaning(answer), meaning(gold)
    return None if one is None or other is None else one == other


def same_colons(answer: str, gold: str) -> bool | None:
    """Compares two times of day (`4:30 p.m.`) or two ratios (`2:3`, which is `4:6`); None for anything else."""
    times = _TIME.fullmatch(answer), _TIME.fullmatch(gold)
    if times[0] and times[1]:
        halves = {(each[4] or "").lower() for each in times if each}
        clocks = [[int(part or 0) for part in each.groups()[:3]] for each in times if each]
        return clocks[0] == clocks[1] and (len(halves) == 1 or "" in halves)
    if not (_RATIO.fullmatch(answer) and _RATIO.fullmatch(gold)):
        return None
    one, other = (re.sub(r"\s+", "", text).split(":") for text in (answer, gold))
    if len(one) != len(other):
        return False
    if one == other:
        return True
    if any(times) or not all(re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?", part) for part in one + other):
        return None if len(one) == 2 else False
    numbers = [[Fraction(part) for part in parts] for parts in (one, other)]
    return all(a * numbers[1][0] == b * numbers[0][0] for a, b in zip(*numbers, strict=True))
