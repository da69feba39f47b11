"""Settles the plain cases without algebra: numbers, letters of choice, words, and equal strings."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from open_r1.rewards import notation, numeric, phrases
from open_r1.rewards.notation import canonical, clean, plain_text
from open_r1.rewards.units import Unit, parse_unit, ratio, split_unit, turns

MAX_DIGITS = 60
_LIST = re.compile(r"(?:[(\[]|\\\{)[^<>=]*,[^<>=]*(?:[)\]]|\\\})")
_PARENTHESES = re.compile(r"\(([^()\[\],]*)\)")
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER})?(\.\d*)?(%?)")
_RATIO = re.compile(r"([+-]?)(?:(\d+)[ +]?)?(?:\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(?<!\d)(\d+)/(\d+))(%?)")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot)\{?(\d+)\}?")
_SCIENTIFIC = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]|(?:\\times|\\cdot|\*)10\^)\{?([+-]?\d{1,2})\}?")
_BASED = re.compile(r"([0-9A-F]+)_\{?(\d{1,2})\}?")
_ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|\\[a-z]+)(?:=|\\in(?![a-z]))")
_MONEY = {
    "$": "usd",
    "\\$": "usd",
    "€": "eur",
    "\\euro": "eur",
    "£": "gbp",
    "\\pounds": "gbp",
    "¥": "yen",
    "₹": "rupee",
}
_MARKS = re.compile(r"[$€£¥₹°]|\\circ|\\euro|\\pounds")
_NAME_AND_VALUE = re.compile(r"([A-Za-z])=([^A-Za-z=<>]+)")
_CHOICE = re.compile(r"\(?([A-Z])\)?(?:[).:].*)?", re.DOTALL)
_LABEL = re.compile(r"(?<![A-Za-z])\(?([A-Z])(?=\s*[).:,])")
_TEXT_ONLY = re.compile(r"[^\W\d_]{2,}(?:[ ',.-]+[^\W\d_]+)*(?: \d{1,2})?")


@dataclass(frozen=True)
class Value:
    """A number, exact; `decimals` places if it was written as a decimal, with so many significant digits."""

    number: Fraction
    decimals: int | None
    significant: int
    percent: bool


def number(text: str) -> Value | None:
    """Value of a canonical integer, decimal, fraction or percentage; None for anything else or too many digits."""
    if len(text) > 2 * MAX_DIGITS or sum(map(str.isdigit, text)) > MAX_DIGITS or not text.isascii():
        return None
    plain = _DECIMAL.fullmatch(text)
    if plain and (plain[2] or (plain[3] or "") > "."):
        sign, integer, fraction, percent = plain.groups()
        digits = (integer or "0").replace(",", "") + (fraction or "")
        value = Fraction(Decimal(digits.rstrip("."))) * (-1 if sign == "-" else 1)
        places = len(fraction) - 1 if fraction else None
        return Value(value, places, len(digits.replace(".", "").lstrip("0")), bool(percent))
    scientific = _SCIENTIFIC.fullmatch(text)
    if scientific:
        return Value(Fraction(Decimal(scientific[1])) * Fraction(10) ** int(scientific[2]), None, 0, False)
    if repeating := _REPEATING.fullmatch(text):
        sign, integer, once, again = repeating.groups()
        value = Fraction(int(integer + once + again or 0) - int(integer + once or 0), 10 ** len(once))
        value /= 10 ** len(again) - 1
        return Value(-value if sign == "-" else value, None, 0, False)
    quotient = _RATIO.fullmatch(text)
    if not quotient:
        return None
    sign, whole, top, bottom, flat_top, flat_bottom, percent = quotient.groups()
    top, bottom = top or flat_top, bottom or flat_bottom
    if int(bottom) == 0 or (whole and "-" in top + bottom):
        return None
    value = Fraction(int(top), int(bottom)) + int(whole or 0)
    return Value(-value if sign == "-" else value, None, 0, bool(percent))


def same_number(answer: Value, gold: Value) -> bool:
    """Equal, or a decimal of at least six digits that rounds (or cuts) the other. `50%` is both 50 and 0.5."""
    if _close(answer, gold.number):
        return True
    if answer.percent == gold.percent:
        return False
    return _close(answer, gold.number * (Fraction(1, 100) if gold.percent else 100))


def _close(answer: Value, target: Fraction) -> bool:
    if answer.number == target:
        return True
    if not answer.decimals or answer.significant < 6:
        return False
    last_place = Fraction(1, 10**answer.decimals)
    cut = target / answer.number - 1 >= 0 and abs(target - answer.number) < last_place
    return cut or abs(answer.number - target) <= last_place / 2


def rounds(answer: str, gold: str) -> bool:
    """Is canonical `answer` a decimal of six digits or more, and canonical `gold` a constant that it rounds or cuts?"""
    decimal = number(answer)
    constant = numeric.evaluate(gold) if decimal and decimal.decimals and numeric.is_constant(gold) else None
    if decimal is None or constant is None or decimal.significant > 14 or number(gold) or constant.imag:
        return False
    return _close(decimal, Fraction(constant.real))


def without_name(answer: str) -> str:
    """`x=5` is `5`; also `f(x)=`, `x\\in`."""
    assigned = _ASSIGNED.match(answer)
    return answer[assigned.end() :] if assigned and answer.count("=") <= 1 else answer


def settle(answer: str, gold: str) -> bool | None:
    """True or False where that is plain to see; None: needs algebra."""
    flat_answer, flat_gold = canonical(answer), canonical(gold)
    if flat_answer and flat_answer == flat_gold:
        return _same_marks(answer, gold)
    if _named_differently(flat_answer, flat_gold):
        return False
    if "=" not in flat_gold:
        flat_answer = without_name(flat_answer)
        if flat_answer == flat_gold:
            return _same_marks(answer, gold)
    if flat_gold.isdigit() and flat_answer.isdigit():
        return flat_answer.lstrip("0") == flat_gold.lstrip("0")
    based = _BASED.fullmatch(flat_gold) or _BASED.fullmatch(flat_answer)
    settled = _settle_base(flat_answer, flat_gold) if based else _settle_words(answer, gold)
    if settled is None and rounds(flat_answer, flat_gold):
        return True
    if settled is None and _surely_differ(flat_answer, flat_gold):
        return False
    return settled


def _same_marks(answer: str, gold: str) -> bool:
    """Do signs that `clean` takes away (money, degrees) go together?"""
    if not _MARKS.search(answer) or not _MARKS.search(gold):
        return True
    return ratio(measured(answer)[1], measured(gold)[1]) == 1


def _named_differently(answer: str, gold: str) -> bool:
    """`y=3` for `x=3`."""
    one, other = _NAME_AND_VALUE.fullmatch(answer), _NAME_AND_VALUE.fullmatch(gold)
    return bool(one and other and one[1].lower() != other[1].lower())


def _surely_differ(answer: str, gold: str) -> bool:
    """Different kinds of things, or expressions with different values."""
    kinds = _kind(answer), _kind(gold)
    if None not in kinds and kinds[0] != kinds[1]:
        return True
    plain_answer, plain_gold = answer.rstrip("%"), gold.rstrip("%")
    if plain_answer == answer and plain_gold == gold:
        return numeric.differ(answer, gold)
    scaled = (f"({plain_answer})/100", plain_gold), (plain_answer, f"({plain_gold})/100")
    return all(numeric.differ(*pair) for pair in ((plain_answer, plain_gold), *scaled))


@lru_cache(maxsize=65_536)
def _kind(flat: str) -> str | None:
    if flat.startswith("\\begin{"):
        return "matrix"
    if numeric.evaluate(flat.rstrip("%")) is not None:
        return "value"
    if _TEXT_ONLY.fullmatch(flat):
        return "words"
    return "list" if _LIST.fullmatch(flat) else None


def _settle_base(answer: str, gold: str) -> bool | None:
    """`52_8` is `52` (the base goes without saying), but not `52_7`."""
    based, answer_based = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if based and answer_based:
        return based.groups() == answer_based.groups()
    digits = (based[1], answer) if based else (gold, answer_based[1] if answer_based else "")
    return digits[0] == digits[1] if all(number(each) or each.isalnum() for each in digits) else None


def _settle_words(answer: str, gold: str) -> bool | None:
    gold_number, gold_unit = _quantity(gold)
    if gold_number:
        answer_number, answer_unit = _quantity(answer)
        if answer_number is None:
            return None
        times = ratio(answer_unit, gold_unit)
        if times is None:
            return None if turns(answer_unit, gold_unit) else False
        return same_number(answer_number, replace(gold_number, number=gold_number.number * times))
    gold_text, answer_text = plain_text(gold), plain_text(answer)
    for verdict in (phrases.same_meaning(answer_text, gold_text), phrases.same_colons(answer_text, gold_text)):
        if verdict is not None:
            return verdict
    choice = _CHOICE.fullmatch(phrases.option(gold_text))
    if choice and len(phrases.option(gold_text)) <= 3:
        answer_text = phrases.option(answer_text)
        chosen = _CHOICE.fullmatch(answer_text)
        if chosen and set(_LABEL.findall(answer_text[chosen.end(1) :])) - {choice[1]}:
            return False  # several choices are named
        return chosen[1] == choice[1] if chosen else None
    if _TEXT_ONLY.fullmatch(gold_text) and _TEXT_ONLY.fullmatch(answer_text):
        return _fold(answer_text) == _fold(gold_text)
    return None


@lru_cache(maxsize=65_536)
def measured(answer: str) -> tuple[str, Unit | None]:
    """`(quantity, unit)` of an answer as it was written; money and degrees are units too."""
    written = notation.from_unicode(answer)
    quantity, unit = split_unit(clean(answer))
    if unit is None:
        if temperature := notation.TEMPERATURE.search(written):
            unit = parse_unit({"C": "celsius", "F": "fahrenheit"}[temperature[1]])
        elif notation.DEGREES.search(written):
            unit = parse_unit("degree")
        elif money := notation.MONEY.search(written):
            sign = re.sub(r"\\text|[\s{}]", "", money.group())
            unit = parse_unit(_MONEY.get(sign, sign.strip("\\")))
    return quantity, unit


@lru_cache(maxsize=65_536)
def _quantity(answer: str) -> tuple[Value | None, Unit | None]:
    quantity, unit = measured(answer)
    flat = without_name(canonical(quantity))
    inside = _PARENTHESES.fullmatch(flat)
    return number(inside[1] if inside else flat), unit


def is_plain(answer: str) -> bool:
    """Is it a number, words (a name, `even`, `June 20`) or a letter of choice, rather than mathematics?"""
    flat = canonical(answer)
    if flat.isdigit() or _quantity(answer)[0] or _BASED.fullmatch(flat):
        return True
    text = plain_text(answer)
    return bool(_TEXT_ONLY.fullmatch(text) or (_CHOICE.fullmatch(text) and len(text) <= 3))


def _fold(text: str) -> str:
    return re.sub(r"\band\b|[\W_]+", "", text.casefold())
