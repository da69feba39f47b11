"""Decides simple cases without algebra: numbers, choice letters, words, and equal strings."""

import re
from dataclasses import replace
from functools import lru_cache

from open_r1.rewards import choices, names, numeric, phrases
from open_r1.rewards.notation import canonical, plain_text
from open_r1.rewards.quantity import measured, number, rounds, same_number, value_and_unit, without_name
from open_r1.rewards.units import ratio, turns

_LIST = re.compile(r"(?:[(\[]|\\\{)[^<>=]*,[^<>=]*(?:[)\]]|\\\})")
_BASED = re.compile(r"(-?[0-9A-F]+)_\{?(\d{1,2})\}?")
_MARKS = re.compile(r"[$€£¥₹°]|\\circ|\\euro|\\pounds")
_TEXT_ONLY = re.compile(r"[^\W\d_]{2,}(?:[ ',.-]+[^\W\d_]+)*(?: \d{1,2})?")
_FOLDED = re.compile(r"\band\b|[\W_]+")


def settle(answer: str, gold: str) -> bool | None:
    """True or False for simple cases; None: needs algebra."""
    flat_answer, flat_gold = canonical(answer), canonical(gold)
    if flat_answer and flat_answer == flat_gold:
        return _same_marks(answer, gold)
    if flat_answer.count("=") == 1 == flat_gold.count("=") and _named_differently(plain_text(answer), plain_text(gold)):
        return False
    if "=" not in flat_gold:
        flat_answer = without_name(flat_answer)
        if flat_answer == flat_gold:
            return _same_marks(answer, gold)
    if flat_gold.isdigit() and flat_answer.isdigit():
        return flat_answer.lstrip("0") == flat_gold.lstrip("0")
    based = _BASED.fullmatch(flat_gold) or _BASED.fullmatch(flat_answer)
    settled = _settle_base(flat_answer, flat_gold) if based else _settle_words(answer, gold)
    if based and settled and (measured(answer)[1] or measured(gold)[1]):
        return False  # `66_8` and 66 degrees
    if settled is not None:
        return settled
    answer, gold = plain_text(answer), plain_text(gold)
    if rounds(answer, gold):
        return True
    if _surely_differ(answer, gold):
        return False
    values = numeric.exact(answer), numeric.exact(gold)
    return True if values[0] is not None and values[0] == values[1] else None


def _same_marks(answer: str, gold: str) -> bool:
    """Whether signs that `clean` removes (money, degrees) match."""
    if not _MARKS.search(answer) or not _MARKS.search(gold):
        return True
    return ratio(measured(answer)[1], measured(gold)[1]) == 1


def _named_differently(answer: str, gold: str) -> bool:
    """`y=3` for `x=3`, `a_2=2` for `a_1=2`."""
    one, other = names.split(answer), names.split(gold)
    if one.name is None or other.name is None or one.name == other.name or one.words or other.words:
        return False
    if one.parameters or other.parameters:
        return False
    return numeric.is_constant(one.value) and numeric.is_constant(other.value)


def _surely_differ(answer: str, gold: str) -> bool:
    """Whether they are of different kinds, or expressions with different values."""
    kinds = {_kind(answer), _kind(gold)}
    if None not in kinds and len(kinds) > 1 and kinds != {"list", "matrix"}:
        return True
    plain_answer, plain_gold = answer.rstrip("%"), gold.rstrip("%")
    if plain_answer == answer and plain_gold == gold:
        return numeric.differ(answer, gold)
    scaled = (f"({plain_answer})/100", plain_gold), (plain_answer, f"({plain_gold})/100")
    return all(numeric.differ(*pair) for pair in ((plain_answer, plain_gold), *scaled))


@lru_cache(maxsize=65_536)
def _kind(text: str) -> str | None:
    if text.startswith("\\begin{"):
        return "matrix"
    if numeric.evaluate(text.rstrip("%")) is not None:
        return "value"
    if _TEXT_ONLY.fullmatch(text):
        return "words"
    return "list" if _LIST.fullmatch(text) else None


def _settle_base(answer: str, gold: str) -> bool | None:
    """`52_8` is `52` (the base may be omitted), but not `52_7`."""
    based, answer_based = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if based and answer_based:
        return based.groups() == answer_based.groups()
    digits = (based[1], answer) if based else (gold, answer_based[1] if answer_based else "")
    return digits[0] == digits[1] if all(number(each) or each.isalnum() for each in digits) else None


def _settle_words(answer: str, gold: str) -> bool | None:
    gold_number, gold_unit = value_and_unit(gold)
    if gold_number:
        answer_number, answer_unit = value_and_unit(answer)
        if answer_number is None:
            return None
        if (gold_number.percent and answer_unit) or (answer_number.percent and gold_unit):
            return False
        times = ratio(answer_unit, gold_unit)
        if times is None:
            return None if turns(answer_unit, gold_unit) else False
        return same_number(answer_number, replace(gold_number, number=gold_number.number * times))
    gold_text, answer_text = plain_text(gold), plain_text(answer)
    for verdict in (
        phrases.same_meaning(answer_text, gold_text),
        phrases.same_colons(answer_text, gold_text),
        choices.same(answer_text, gold_text),
    ):
        if verdict is not None:
            return verdict
    if choices.is_letter(choices.option(gold_text)):
        return None
    if _TEXT_ONLY.fullmatch(gold_text) and _TEXT_ONLY.fullmatch(answer_text):
        return _fold(answer_text) == _fold(gold_text)
    return None


def is_plain(answer: str) -> bool:
    """Whether it is a number, words (a name, `even`, `June 20`) or a choice letter, rather than mathematics."""
    flat = canonical(answer)
    if flat.isdigit() or value_and_unit(answer)[0] or _BASED.fullmatch(flat):
        return True
    text = plain_text(answer)
    return bool(_TEXT_ONLY.fullmatch(text) or choices.is_letter(text))


def _fold(text: str) -> str:
    return _FOLDED.sub("", text.casefold())
