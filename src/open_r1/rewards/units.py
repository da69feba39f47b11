"""Units behind a number: `10\\text{ cm}^2`, `18 dollars`, `5 km`."""

import re

_ALIASES = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "dm": "dm decimeter decimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "mg": "mg milligram",
    "g": "g gm gram",
    "kg": "kg kilogram",
    "oz": "oz ounce",
    "lb": "lb pound",
    "ms": "ms millisecond",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "yr year",
    "ml": "ml milliliter millilitre",
    "l": "l liter litre",
    "gal": "gal gallon",
    "mph": "mph",
    "km/h": "km/h kmh kmph kph",
    "m/s": "m/s",
    "usd": "dollar usd buck",
    "cent": "cent",
    "deg": "degree deg",
    "rad": "radian rad",
    "": "unit",
}
UNITS = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases.split()}
_POWERS = {"square": "2", "squared": "2", "sq": "2", "cubic": "3", "cubed": "3", "cu": "3"}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NOT_UNITS = {"pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "and", "or", "to", "over", "times", "plus", "mod"}
_NOT_UNITS |= {"minus", "by", "dozen", "half", "halves", "thirds", "choose", "divided", "if", "when", "is", "not", "of"}
_NOT_UNITS |= {"th", "st", "nd", "rd"}

_LATEX_UNIT = re.compile(
    r"\\(?:text|mathrm|mbox|textrm|textnormal|textit|textbf|rm)\s*\{\s*([^{}\\\d]*)\}\s*(?:\^\s*\{?\s*([23])\s*\}?)?\s*$"
)
_PLAIN_UNIT = re.compile(
    r"(?<=[\d)}%])(?:\s+|(?=(?:mm|cm|km|kg|ft|mph|ml|lbs?|min|hrs?|in|m)(?:\b|\^)))"
    r"([A-Za-z]{2,}(?:[ /-]+[A-Za-z]+)*|m|(?<=\s)[gshL])\s*(?:\^\s*\{?\s*([23])\s*\}?|[23])?\s*$"
)


def split_unit(answer: str) -> tuple[str, str | None]:
    """`(quantity, unit)`. The unit is None if there is none, in a normal form (`cm^2`) if it is known, and the bare
    words otherwise. Words of scale become part of the quantity: `2 million` is `2*10^6`."""
    for pattern in (_LATEX_UNIT, _PLAIN_UNIT):
        match = pattern.search(answer)
        quantity = answer[: match.start()].rstrip(" ~,") if match else ""
        if match and quantity and re.search(r"[\d)}A-Za-z%]$", quantity):
            words = [w.lower().rstrip(".") for w in re.split(r"[\s-]+", match[1].strip()) if w.strip(".")]
            if not words or (pattern is _PLAIN_UNIT and words[0] in _NOT_UNITS):
                return answer, None
            scale = 0
            while words and words[0] in _SCALES:
                scale += _SCALES[words.pop(0)]
            if scale:
                quantity = f"{quantity}\\cdot10^{{{scale}}}"
            if words and words[0] in ("percent", "pct", "percentage"):
                return quantity + "%", None
            return quantity, _normal_form(words, match[2])
    return answer, None


def same_unit(one: str | None, other: str | None) -> bool:
    """False only if both are known units and differ; a missing or unknown unit is let pass."""
    if one is None or other is None or one == other:
        return True
    return not (_known(one) and _known(other))


def _known(unit: str) -> bool:
    return unit.partition("^")[0] in _ALIASES and unit != ""


def _normal_form(words: list[str], power: str | None) -> str:
    for word in words:
        power = power or _POWERS.get(word)
    nouns = [word for word in words if word not in _POWERS]
    joined = " ".join(nouns)
    name = UNITS.get(joined, UNITS.get(joined.removesuffix("s"), joined))
    return f"{name}^{power}" if power and name else name
