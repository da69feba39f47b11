"""Settles the plain cases without algebra: numbers, letters of choice, words, and equal strings."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from open_r1.rewards import numeric
from open_r1.rewards.units import same_unit, split_unit

MAX_DIGITS = 60
_DROP = re.compile(
    r"(?<!\\)\\(?:(?:left|right|displaystyle|textstyle|limits|bigl|bigr|Bigl|Bigr|big|Big|q?quad)(?![A-Za-z])"
    r"|phantom\s*(?:\{[^{}]*\}|.)|[,;:> ()\[\]])|~"
)
_INVISIBLE = dict.fromkeys([0, 0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF])
_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "％": "%", "，": ",", "（": "(", "）": ")", "：": ":", "\xa0": " ", "\u202f": " "}
    | {"×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge "}
    | {"∪": r"\cup ", "∅": r"\emptyset ", "∈": r"\in ", "±": r"\pm "}
    | _INVISIBLE
)
_DEGREES = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°)\s*(?:\\(?:text|mathrm)\{\s*)?[CF]?(?:\s*\})?$"
)
_CIRC = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°")
_GROUPED = re.compile(r"(?<=\d)(?:,?\\!\s*|\{,\}|,\s*\\,|\\,)(?=\d{3})")
_SPACED_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\s?\d)")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|operatorname|bold|boldsymbol)\s*"
    r"\{([^{}]*)\}"
)
_FRAC = re.compile(r"\\[dtc]?frac(?![A-Za-z])")
_FRAC_TOKENS = re.compile(r"\\frac\s*(\{[^{}]*\}|\\[A-Za-z]+|\w)\s*(\{[^{}]*\}|\\[A-Za-z]+|\w)")
_APPROXIMATELY = re.compile(r"^\\(?:approx|sim|simeq)(?![A-Za-z])\s*")
_LIST = re.compile(r"(?:[(\[]|\\\{)[^<>=]*,[^<>=]*(?:[)\]]|\\\})")
_PARENTHESES = re.compile(r"\(([^()\[\],]*)\)")
_SQRT_TOKEN = re.compile(r"\\sqrt\s*(\w)")
_SCRIPT = re.compile(r"([\^_])\{(\w)\}")
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER})?(\.\d*)?(%?)")
_RATIO = re.compile(r"([+-]?)(?:(\d+)\+?)?(?:\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(?<!\d)(\d+)/(\d+))(%?)")
_SCIENTIFIC = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]|(?:\\times|\\cdot|\*)10\^)\{?([+-]?\d{1,2})\}?")
_BASED = re.compile(r"([0-9A-F]+)_\{?(\d{1,2})\}?")
_ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|\\[a-z]+)(?:=|\\in(?![a-z]))")
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


def clean(answer: str) -> str:
    """`answer` without layout: dollars, spacing commands, marks of degree, variants of fractions, the final stop."""
    answer = _GROUPED.sub("", answer.translate(_UNICODE).replace("\\!", r"\! ").replace(r"\! ", "\\!"))
    answer = answer.replace("\\!", "").replace("\\$", "").replace("$", "").replace("\\%", "%")
    answer = _DROP.sub(" ", answer.replace("{,}", ","))
    answer = _CIRC.sub("", _DEGREES.sub("", _braced(_FRAC.sub(r"\\frac", answer))))
    answer = re.sub(r"\\\\\s*\[[^\]]*\]", r"\\\\", answer).replace("\\varnothing", "\\emptyset")
    return _APPROXIMATELY.sub("", re.sub(r"\s+", " ", answer).strip(" *")).rstrip(".,; ")


def _braced(answer: str) -> str:
    return _FRAC_TOKENS.sub(lambda m: "\\frac" + "".join(a if a[0] == "{" else f"{{{a}}}" for a in m.groups()), answer)


def plain_text(answer: str) -> str:
    """`clean`, with text commands unwrapped."""
    return _WRAPPED.sub(r"\1", clean(answer)).strip().rstrip(".").strip()


@lru_cache(maxsize=65_536)
def canonical(answer: str) -> str:
    """`plain_text` without white space (but that between digits), with braces around arguments of a fraction."""
    answer = _SCRIPT.sub(r"\1\2", _SQRT_TOKEN.sub(r"\\sqrt{\1}", plain_text(answer)))
    answer = _SPACED_GROUPS.sub(lambda m: m.group().replace(" ", ""), answer)
    return re.sub(r"\s+(?!\d)|(?<!\d)\s+", "", answer)


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


def without_name(answer: str) -> str:
    """`x=5` is `5`; also `f(x)=`, `x\\in`."""
    assigned = _ASSIGNED.match(answer)
    return answer[assigned.end() :] if assigned and answer.count("=") <= 1 else answer


def settle(answer: str, gold: str) -> bool | None:
    """True or False where that is plain to see; None: needs algebra."""
    flat_answer, flat_gold = canonical(answer), canonical(gold)
    if flat_answer and flat_answer == flat_gold:
        return True
    if "=" not in flat_gold:
        flat_answer = without_name(flat_answer)
        if flat_answer == flat_gold:
            return True
    if flat_gold.isdigit() and flat_answer.isdigit():
        return flat_answer.lstrip("0") == flat_gold.lstrip("0")
    based = _BASED.fullmatch(flat_gold) or _BASED.fullmatch(flat_answer)
    settled = _settle_base(flat_answer, flat_gold) if based else _settle_words(answer, gold)
    if settled is None and _surely_differ(flat_answer, flat_gold):
        return False
    return settled


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
        return same_number(answer_number, gold_number) and same_unit(answer_unit, gold_unit)
    gold_text, answer_text = plain_text(gold), plain_text(answer)
    choice = _CHOICE.fullmatch(gold_text)
    if choice and len(gold_text) <= 3:
        chosen = _CHOICE.fullmatch(answer_text)
        if chosen and set(_LABEL.findall(answer_text[chosen.end(1) :])) - {choice[1]}:
            return False  # several choices are named
        return chosen[1] == choice[1] if chosen else None
    if _TEXT_ONLY.fullmatch(gold_text) and _TEXT_ONLY.fullmatch(answer_text):
        return _fold(answer_text) == _fold(gold_text)
    return None


@lru_cache(maxsize=65_536)
def _quantity(answer: str) -> tuple[Value | None, str | None]:
    quantity, unit = split_unit(clean(answer))
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
    return re.sub(r"[\W_]+", "", text).casefold()
