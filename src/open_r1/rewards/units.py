"""Units after a number: `10\\text{ cm}^2`, `18 dollars`, `5 km/h`. Known ones are converted, `1 m` is `100 cm`."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from open_r1.rewards.unit_words import (
    ABBREVIATIONS,
    LONG_PREFIXES,
    MEANINGFUL,
    MEANINGFUL_IN_TEXT,
    NEUTRAL,
    NOT_COUNTED,
    ORDINALS,
    POWER_WORDS,
    POWERS,
    PREFIXES,
    SCALED,
    SCALES,
    SYMBOLS,
    TABLE,
)

_NOUN = re.compile(r"(?=.*[aeiouy])[a-z]{3,}")
MAX_WORDS = 5

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?")
_LAST_NUMBER = re.compile(r"[-\d.,]*+$")
_VARIABLE = re.compile(r"[A-Za-z]")
_COMMAND = re.compile(r"\\(?:frac|sqrt|cdot|times|pi|left|right)(?![A-Za-z])")
_SUM = re.compile(r"(?<=[\w)}])\s*+[+-]")
_ORDINAL = re.compile(
    r"^(-?\d++)\s?\^?\s?\{?\s?(?:\\(?:text|mathrm|textrm|rm)\s?\{\s?)?(?:st|nd|rd|th)(?![A-Za-z])[\s}]*+(?=$|[A-Za-z])"
)
_REMARK = re.compile(r"(?<=[\d}])(?: | ?(?=\(\\))\((?:\\text\s?\{)?([A-Za-z][A-Za-z ]*+)\}?\)$")
_SUFFIX = r"(?:\s*\^\s*\{?\s*(-?[1-4])\s*\}?)?\s*$"
_LATEX_UNIT = re.compile(
    r"\\(?:text|mathrm|mbox|textrm|textnormal|textit|textbf|rm)\s*+\{\s*+((?:[^{}\\\d]|\^\{?-?\d\}?)*)\}" + _SUFFIX
)
_PLAIN_UNIT = re.compile(
    r"(?<=[\d)}%])(?:\s+|(?=(?:mm|cm|km|kg|ft|mph|ml|mL|lbs?|min|hrs?|in|m)(?:\b|\^)))"
    r"((?:[A-Za-z]{2,}|m|(?<=\s)[gshLJ])(?:(?:\^\{?[1-4]\}?)?(?:\s*/\s*|[ *-]+)[A-Za-z]+)*)" + _SUFFIX
)


@dataclass(frozen=True)
class Unit:
    """A unit: `dimension` holds base quantities with their powers, `factor` of base units. For unknown units
    `dimension` is empty and `words` names what is counted. A `bare` one is a letter that may be a variable: `4m`."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction
    words: frozenset[str] = frozenset()
    bare: bool = False


def split_unit(answer: str) -> tuple[str, Unit | None]:
    """`(quantity, unit)`; the unit is None if there is none. Words of scale become part of the quantity: `2 million`
    is `2*10^6`. Other words (`5 squared`, `5 or six`) are not units."""
    answer = _ORDINAL.sub(r"\1 ", answer).strip()
    if (remark := _REMARK.search(answer)) and (unit := parse_unit(remark[1], plain=True)):
        return answer[: remark.start()], unit
    for pattern in (_LATEX_UNIT, _PLAIN_UNIT):
        match = pattern.search(answer)
        quantity = answer[: match.start()].rstrip(" ~,") if match else ""
        if match and quantity and re.search(r"[\d)}A-Za-z%]$", quantity):
            text = match[1].strip() + (f"^{match[2]}" if match[2] else "")
            words = text.split()
            if not words or not _is_amount(quantity, text):
                return answer, None
            quantity, words = _scaled(quantity, words)
            if words and words[0].lower() in ("percent", "pct", "percentage"):
                return quantity + "%", None
            if not words:
                return quantity, None
            unit = parse_unit(" ".join(words), plain=pattern is _PLAIN_UNIT)
            return (answer, None) if unit is None else (quantity, unit)
    return answer, None


def _scaled(quantity: str, words: list[str]) -> tuple[str, list[str]]:
    """Leading scale words as factors of the quantity: `5`, `["tenths"]` as `\\frac{1}{10}\\cdot(5)`."""
    factor = Fraction(1)
    while words and (scale := SCALES.get(words[0].lower())) is not None:
        if words[0].lower() in ORDINALS and _LAST_NUMBER.search(quantity)[0] not in ("1", "-1"):  # type: ignore[index]
            break  # `15 tenth`
        factor *= scale
        words = words[1:]
        if words[:1] == ["of"] and words[1:2] in (["a"], ["an"]):
            words = words[2:]
    if factor == 1:
        return quantity, words
    if _NUMBER.fullmatch(quantity):
        amount = Fraction(quantity.replace(",", "")) * factor
        return _latex(amount), words
    whole = factor.denominator == 1
    scale_text = str(factor.numerator) if whole else f"\\frac{{{factor.numerator}}}{{{factor.denominator}}}"
    return f"{scale_text}\\cdot({quantity})", words


def _latex(number: Fraction) -> str:
    sign, number = "-" if number < 0 else "", abs(number)
    if number.denominator == 1:
        return f"{sign}{number.numerator}"
    return f"{sign}\\frac{{{number.numerator}}}{{{number.denominator}}}"


def _is_amount(quantity: str, unit: str) -> bool:
    """Whether a unit may follow. After a variable (`2m+1`, `m^2+2m`) a letter is another variable."""
    if len(unit) > 2:
        return True
    return not _VARIABLE.search(_COMMAND.sub(" ", quantity)) and not _SUM.search(quantity)


@lru_cache(maxsize=8192)
def parse_unit(text: str, *, plain: bool = False) -> Unit | None:
    """The unit that `text` names; None if its words mean more than a unit."""
    known = _known(text)
    if known is not None:
        return known
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", text)]
    forbidden = MEANINGFUL if plain else MEANINGFUL_IN_TEXT
    if "of" in words[1:]:  # `15% of the total`, not `5 of x`
        forbidden = forbidden - {"of"}
    nouns = words[1:] if words[:1] in (["square"], ["cubic"]) else words
    if not any(map(_NOUN.fullmatch, nouns)) or len(nouns) > MAX_WORDS or forbidden.intersection(nouns):
        return None  # also `5 xy`, which is a product
    return Unit((), Fraction(1), frozenset(_singular(word) for word in words))


def _known(text: str) -> Unit | None:
    dimension: Counter[str] = Counter()
    factor, sign, power, last = Fraction(1), 1, 1, None
    for token in re.findall(r"[A-Za-zµμ]+|\^\{?-?\d\}?|/|\S", text.replace("²", "^2").replace("³", "^3")):
        word = token.lower().rstrip(".")
        if word in ("/", "per"):
            sign = -1
        elif word in POWERS and not (word.endswith("d") and last):
            power = POWERS[word]
        elif last and (token[0] == "^" or word in POWERS):
            extra = (POWERS.get(word) or int(token.strip("^{}"))) - 1
            for name, exponent in last[0].items():
                dimension[name] += exponent * extra
            factor *= last[1] ** extra
        elif (unit := _word(token)) is not None:
            last = (Counter({name: exponent * sign * power for name, exponent in unit.dimension}), unit.factor**sign)
            dimension.update(last[0])
            factor *= unit.factor ** (sign * power)
            power = 1
        elif word not in ("", ".", "-", "*", "degree", "degrees"):
            return None
    powers = tuple(sorted((name, exponent) for name, exponent in dimension.items() if exponent))
    if ("celsius", 1) in powers or ("fahrenheit", 1) in powers:
        powers = tuple(item for item in powers if item[0] != "angle")
    return Unit(powers, factor) if powers else None


def _word(token: str) -> Unit | None:
    """Unit of one word or symbol."""
    if token.lower() in ABBREVIATIONS:
        return _known(ABBREVIATIONS[token.lower()])
    for name in (token, token.lower(), _singular(token.lower())):
        scale = 0
        if name not in TABLE:
            long = next((p for p in LONG_PREFIXES if name.startswith(p) and name[len(p) :] in SCALED), None)
            if long:
                name, scale = name[len(long) :], LONG_PREFIXES[long]
            elif name in SYMBOLS:
                name = SYMBOLS[name]
            elif name[:1] in PREFIXES and name[1:] in SYMBOLS and name[1:] != "h":
                name, scale = SYMBOLS[name[1:]], PREFIXES[name[:1]]
        if name in TABLE:
            dimension, factor = TABLE[name]
            powers = (("length", 3),) if dimension == "volume" else ((dimension, 1),)
            return Unit(powers, factor * Fraction(10) ** scale)
    return None


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def ratio(answer: Unit | None, gold: Unit | None) -> Fraction | None:
    """The factor that converts a quantity from `gold` to `answer`; None if they measure different things.

    A missing unit is accepted unless that of `gold` may be a variable, and so are degrees without a scale.
    """
    if answer is None and gold is not None and gold.bare:
        return None
    if answer is None or gold is None or answer == gold:
        return Fraction(1)
    if answer.dimension == gold.dimension and answer.dimension:
        return gold.factor / answer.factor
    dimensions = {answer.dimension, gold.dimension}
    degrees = {(("angle", 1),), (("celsius", 1),), (("fahrenheit", 1),)}
    if (("angle", 1),) in dimensions and dimensions <= degrees:
        return Fraction(1)
    if answer.dimension and gold.dimension:
        return None
    return Fraction(1) if _share_a_word(answer, gold) else None


TURNS = (r"\frac{\pi}{180}", r"\frac{180}{\pi}")


def turns(answer: Unit | None, gold: Unit | None) -> str | None:
    """LaTeX of the factor from degrees in `gold` to radians in `answer`, or back; None for other units."""
    if answer is None or gold is None:
        return None
    pair = answer.dimension, gold.dimension
    if pair == ((("radian", 1),), (("angle", 1),)):
        return TURNS[0]
    return TURNS[1] if pair == ((("angle", 1),), (("radian", 1),)) else None


def _share_a_word(one: Unit, other: Unit) -> bool:
    """Apples are not oranges, but red apples are apples, and `10 centimetres long` is 10 centimetres."""
    if not one.dimension and not other.dimension:
        same_power = one.words & POWER_WORDS == other.words & POWER_WORDS
        return same_power and bool(one.words & other.words or (one.words | other.words) & NEUTRAL)
    known, words = (one, other.words) if one.dimension else (other, one.words)
    if words & NEUTRAL:
        power = 3 if "cubic" in words else 2 if words & POWER_WORDS else 1
        return known.dimension == (("length", power),) or (power == 1 and known.dimension[0][0] not in NOT_COUNTED)
    named = [unit for unit in map(_word, words) if unit is not None]
    return any(unit.factor == known.factor and unit.dimension == known.dimension for unit in named)
