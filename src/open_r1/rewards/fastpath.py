"""Settles the plain cases without algebra: numbers, letters of choice, and equal strings."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_DIGITS = 60
_DROP = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|bigl|bigr|Bigl|Bigr|big|Big)(?![A-Za-z])"
    r"|\\[!,;:>]|\\ |~|\\q?quad(?![A-Za-z])|\\\(|\\\)|\\\[|\\\]"
)
_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "％": "%", "，": ",", "（": "(", "）": ")", "：": ":", "\u200b": None, "\xa0": " "}
    | {"\u200e": None, "\u200f": None, "\u202a": None, "\u202b": None, "\u202c": None, "\u2066": None}
    | {"\u2067": None, "\u2068": None, "\u2069": None, "\ufeff": None, "\u202d": None, "\u202e": None}
)
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|hbox|operatorname|bold|boldsymbol)\s*\{([^{}]*)\}"
)
_FRAC = re.compile(r"\\[dtc]?frac(?![A-Za-z])")
_FRAC_TOKENS = re.compile(r"\\frac\s*(\{[^{}]*\}|\w)\s*(\{[^{}]*\}|\w)")
_SQRT_TOKEN = re.compile(r"\\sqrt\s*(\w)")
_EXPONENT = re.compile(r"\^\{(\w)\}")
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER})?(\.\d*)?(%?)")
_RATIO = re.compile(r"([+-]?)(?:(\d+)\+?)?(?:\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(?<!\d)(\d+)/(\d+))(%?)")
_ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|\\[a-z]+)(?:=|\\in(?![a-z]))")
_CHOICE = re.compile(r"\(?([A-Z])\)?(?:[).:].*)?", re.DOTALL)
_TEXT_ONLY = re.compile(r"[^\W\d_]{2,}(?:[ '.-]+[^\W\d_]+)*\.?")


@dataclass(frozen=True)
class Value:
    """A number: exact, and how many digits a decimal was given to (None: written exactly)."""

    number: Fraction
    decimals: int | None
    significant: int
    percent: bool


def clean(answer: str) -> str:
    """`answer` without layout: dollars, spacing commands, text wrappers, variants of fractions, the final stop."""
    answer = answer.translate(_UNICODE).replace("\\$", "").replace("$", "").replace("\\%", "%")
    answer = _DROP.sub(" ", answer)
    answer = _FRAC.sub(r"\\frac", answer)
    answer = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°", "", answer)
    return re.sub(r"\s+", " ", answer).strip().strip("*").rstrip(".").strip()


def canonical(answer: str) -> str:
    """`clean`, without white space, and with braces around every argument of a fraction."""
    answer = _WRAPPED.sub(lambda m: m.group(1), clean(answer))
    answer = _FRAC_TOKENS.sub(
        lambda m: "\\frac" + "".join(a if a[0] == "{" else f"{{{a}}}" for a in m.groups()), answer
    )
    answer = _SQRT_TOKEN.sub(r"\\sqrt{\1}", answer)
    answer = _EXPONENT.sub(r"^\1", answer)
    return re.sub(r"\s+", "", answer)


def number(text: str) -> Value | None:
    """Value of a canonical integer, decimal, fraction or percentage; None for anything else or too many digits."""
    if sum(character.isdigit() for character in text[: 4 * MAX_DIGITS]) > MAX_DIGITS or len(text) > 4 * MAX_DIGITS:
        return None
    if not text.isascii():
        return None
    plain = _DECIMAL.fullmatch(text)
    if plain and (plain[2] or (plain[3] or "") > "."):
        sign, integer, fraction, percent = plain.groups()
        digits = (integer or "0").replace(",", "") + (fraction or "")
        value = Fraction(Decimal(digits.rstrip("."))) * (-1 if sign == "-" else 1)
        places = len(fraction) - 1 if fraction else None
        significant = len(digits.replace(".", "").lstrip("0"))
        return Value(value, places, significant, bool(percent))
    ratio = _RATIO.fullmatch(text)
    if not ratio:
        return None
    sign, whole, top, bottom, flat_top, flat_bottom, percent = ratio.groups()
    top, bottom = top or flat_top, bottom or flat_bottom
    if int(bottom) == 0 or (whole and (flat_top or "-" in top + bottom)):
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
    return abs(answer.number - target) < Fraction(1, 10**answer.decimals)


def settle(answer: str, gold: str) -> bool | None:
    """True or False where that is plain to see; None: needs algebra."""
    flat_answer, flat_gold = canonical(answer), canonical(gold)
    if flat_answer and flat_answer == flat_gold:
        return True
    if "=" not in flat_gold:
        flat_answer = _ASSIGNED.sub("", flat_answer, count=1) if _ASSIGNED.match(flat_answer) else flat_answer
        if flat_answer == flat_gold:
            return True
    if flat_gold.isdigit() and flat_answer.isdigit():
        return flat_answer.lstrip("0") == flat_gold.lstrip("0")
    gold_number = number(flat_gold)
    if gold_number:
        answer_number = number(flat_answer)
        return same_number(answer_number, gold_number) if answer_number else None
    choice = _CHOICE.fullmatch(_WRAPPED.sub(r"\1", clean(gold)))
    if choice and len(flat_gold) <= 3:
        chosen = _CHOICE.fullmatch(_WRAPPED.sub(r"\1", clean(answer)))
        return chosen[1] == choice[1] if chosen else None
    gold_text = _WRAPPED.sub(r"\1", clean(gold))
    answer_text = _WRAPPED.sub(r"\1", clean(answer))
    if _TEXT_ONLY.fullmatch(gold_text.strip()) and _TEXT_ONLY.fullmatch(answer_text.strip()):
        return _fold(answer_text) == _fold(gold_text)
    return None


def _fold(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
