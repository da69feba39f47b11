r"""Numbers in their usual notations (`1,234`, `1\frac12`, `0.\overline{3}`, `50\%`, `1.2\times10^5`), with their
units."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from open_r1.rewards import notation, numeric
from open_r1.rewards.notation import canonical, clean
from open_r1.rewards.units import Unit, parse_unit, split_unit

MAX_DIGITS = 60
MIN_DIGITS = 6
"""Significant digits from which on a decimal stands for what it rounds."""
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER})?(\.\d*)?(%?)")
_RATIO = re.compile(r"([+-]?)(?:(\d+)[ +]?)?(?:\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(?<!\d)(\d+)/(\d+))(%?)")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot)\{?(\d+)\}?")
_SCIENTIFIC = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]|(?:\\times|\\cdot|\*)10\^)\{?\(?([+-]?\d{1,2})\)?\}?")
_NAME = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?'?(?:\([A-Za-z]\))?|\\[a-z]+)(?:=|\\in(?![a-z]))")
_PARENTHESES = re.compile(r"\(([^()\[\],]*)\)")
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
_MONEY_DRESS = re.compile(r"\\text|[\s{}]")
_BARE = re.compile(r"[A-Za-z](?: ?\^ ?\{?\d\}?)?")
_MATH_MODE = re.compile(r"[$\\]")


@dataclass(frozen=True)
class Value:
    """An exact number; for a decimal also its `decimals` places and its significant digits."""

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
    """Whether they are equal, or one is a decimal of at least six digits that rounds (or truncates) the other. `50%` is
    both 50 and 0.5."""
    if _close(answer, gold):
        return True
    if answer.percent == gold.percent:
        return False
    return _close(answer, replace(gold, number=gold.number * (Fraction(1, 100) if gold.percent else 100)))


def _close(answer: Value, gold: Value) -> bool:
    if answer.number == gold.number:
        return True
    if answer.decimals is not None and gold.decimals is None:
        return _rounded(answer, gold.number)
    return gold.decimals is not None and answer.decimals is None and _rounded(gold, answer.number)


def _rounded(decimal: Value, target: Fraction) -> bool:
    """Whether `decimal` rounds or truncates `target`, which is not such a decimal itself."""
    if not decimal.decimals or decimal.significant < MIN_DIGITS:
        return False
    place = Fraction(1, 10**decimal.decimals)
    cut = abs(target) >= abs(decimal.number) and abs(target - decimal.number) < place and target * decimal.number > 0
    return cut or abs(decimal.number - target) <= place / 2


def rounds(answer: str, gold: str) -> bool:
    """Whether one of two cleaned strings is a decimal of at least six digits that rounds or truncates the other, a
    constant."""
    for decimal_text, constant in ((answer, gold), (gold, answer)):
        decimal = number(canonical(decimal_text))
        if decimal is None or not decimal.decimals or decimal.percent or number(canonical(constant)):
            continue
        value = numeric.evaluate(constant) if numeric.is_constant(constant) else None
        if value is not None and decimal.significant <= 14 and not value[0].imag:
            return _rounded(decimal, Fraction(value[0].real))
    return False


@lru_cache(maxsize=65_536)
def measured(answer: str) -> tuple[str, Unit | None]:
    """`(quantity, unit)` of an uncleaned answer; money and degrees are units too."""
    latex = notation.from_unicode(answer)
    cleaned = clean(answer)
    quantity, unit = split_unit(cleaned)
    if unit is None:
        if temperature := notation.TEMPERATURE.search(latex):
            unit = parse_unit({"C": "celsius", "F": "fahrenheit"}[temperature[1]])
        elif notation.DEGREES.search(latex) and not notation.TRIGONOMETRY.search(latex):
            unit = parse_unit("degree")
        elif money := notation.MONEY.search(latex):
            sign = _MONEY_DRESS.sub("", money.group())
            unit = parse_unit(_MONEY.get(sign, sign.strip("\\")))
    elif _is_bare(cleaned[len(quantity.rstrip()) :], answer):
        unit = replace(unit, bare=True)
    return quantity, unit


def _is_bare(unit: str, answer: str) -> bool:
    """Whether a unit is one letter in the place of a variable: `4m`, `$4 m$`?"""
    return bool(_BARE.fullmatch(unit.strip())) and (unit[:1] != " " or bool(_MATH_MODE.search(answer)))


def without_name(answer: str) -> str:
    r"""`x=5` is `5`; also `f(x)=`, `x\in`."""
    assigned = _NAME.match(answer)
    return answer[assigned.end() :] if assigned and answer.count("=") <= 1 else answer


@lru_cache(maxsize=65_536)
def value_and_unit(answer: str) -> tuple[Value | None, Unit | None]:
    """The number in an answer, None if there is none, and its unit."""
    quantity, unit = measured(answer)
    flat = without_name(canonical(quantity))
    inside = _PARENTHESES.fullmatch(flat)
    return number(inside[1] if inside else flat), unit
