r"""Names before values: `x=5`, `a_{37} = 19`, `P(A)=\frac12`, `f(x)=x^2`, `(x,y)=(1,2)`, `Minimum: 1`.

Values are matched by name where both sides give names, whatever the names look like; by order or as a set where one
side gives none.
"""

import re
from dataclasses import dataclass

_SCRIPT = r"(?:_(?:\w|\\[A-Za-z]+|\{[^{}]{1,20}\}))"
_LETTER = rf"(?:\\(?!frac|sqrt|text|pm|mp|left|in\b|cup)[A-Za-z]+\s?|[A-Za-z]){_SCRIPT}?'*"
_SYMBOL = re.compile(rf"(?:\\angle\s?|\\triangle\s?)?(?:{_LETTER}|[A-Z]{{2,3}}'*|\|[A-Z]{{2}}\|)")
_APPLIED = re.compile(rf"({_LETTER})\s?\(([^()=]{{1,40}})\)")
_PLAIN_LETTER = re.compile(r"[a-z]")
_WORDS = re.compile(r"(?:\\text\{)?\s?([A-Za-z][A-Za-z']{2,}+(?: [A-Za-z']++){0,3})\s?\}?")
_LABEL = re.compile(r"^(?:\\text\{)?\s?([A-Za-z][A-Za-z']{2,}+(?: [A-Za-z']++){0,3})\s?:\s?\}?(?=[-+$\d\\(.])")
_NO_LABELS = re.compile(r"\b(?:option|choice|answer|not|case|part|sequence)\b", re.IGNORECASE)
_SPACE = re.compile(r"[\s{}]+")
_ROOT_NAME = re.compile(r"([A-Za-z])_(\d)")
_COORDINATES = re.compile(r"[A-Za-z]")


@dataclass(frozen=True)
class Named:
    """One value: `name` is None if there is none; `parameters` are those of a function's definition."""

    name: str | None
    value: str
    parameters: tuple[str, ...] = ()
    words: bool = False


def split(text: str) -> Named:
    r"""`a_{37} = 19` as name `a_37` and value `19`; other text has no name."""
    if label := _LABEL.match(text):
        if not _NO_LABELS.search(label[1]):
            return Named(label[1].lower(), text[label.end() :].strip(), words=True)
        return Named(None, text)
    left, sign, right = equation(text)
    if not sign:
        return Named(None, text)
    if _SYMBOL.fullmatch(left):
        return Named(squeezed(left), right)
    if applied := _APPLIED.fullmatch(left):
        arguments = tuple(part.strip() for part in applied[2].split(","))
        if all(map(_PLAIN_LETTER.fullmatch, arguments)):
            return Named(squeezed(applied[1]) + "()", right, arguments)
        return Named(squeezed(left), right)
    if (words := _WORDS.fullmatch(left)) and not _NO_LABELS.search(words[1]):
        return Named(words[1].lower(), right, words=True)
    return Named(None, text)


def tuple_names(text: str) -> tuple[list[str], str] | None:
    """`(x, y) = (1, 2)` as `["x", "y"]` and `(1, 2)`; None for other text."""
    left, sign, right = equation(text)
    if not sign or left[:1] != "(" or left[-1:] != ")" or "," not in left or right[:1] not in ("(", "["):
        return None
    names = [split(f"{part.strip()}=0") for part in _outside_brackets(left[1:-1])]
    if any(each.name is None for each in names):
        return None
    return [each.name for each in names if each.name], right


def equation(text: str) -> tuple[str, str, str]:
    """The two sides of the only `=` sign outside brackets; for a chain of equal values, the last."""
    depth, positions = 0, []
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "=" and depth == 0 and text[position - 1 : position] not in ("<", ">", "!", ":", "\\"):
            positions.append(position)
    if not positions or text[: positions[0]].rstrip().endswith("\\not"):
        return text, "", ""
    return text[: positions[0]].strip(), "=", text[positions[-1] + 1 :].strip()


def sides(text: str) -> list[str]:
    """The parts of a chain `a = b = c`."""
    return [part.strip() for part in text.split("=")]


def _outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def squeezed(name: str) -> str:
    return _SPACE.sub("", name)


def are_roots(names: list[str]) -> bool:
    """Whether they are numbered solutions, whose order does not matter: `x_1, x_2, x_3`."""
    found = [_ROOT_NAME.fullmatch(name) for name in names]
    return (
        all(found)
        and {match[1] for match in found if match} == {names[0][0]}
        and names[0][0] in "xyzt"
        and [int(match[2]) for match in found if match] == list(range(1, len(names) + 1))
    )


def in_order(names: list[str]) -> list[int]:
    """Positions of `names` in a point: coordinates alphabetically (`y=2, x=1`), others in their given order."""
    positions = list(range(len(names)))
    if all(map(_COORDINATES.fullmatch, names)):
        return sorted(positions, key=lambda position: names[position])
    return positions


def renamed(answer: Named, gold: Named) -> str | None:
    """The answer's value with the gold's names of parameters: `f(m)=2m` as `2n` for `f(n)`; None if they clash."""
    if answer.parameters == gold.parameters or not answer.parameters or not gold.parameters:
        return answer.value
    if len(answer.parameters) != len(gold.parameters) or len(answer.parameters) != 1:
        return None
    return substituted(answer.value, answer.parameters[0], gold.parameters[0])


def substituted(text: str, old: str, new: str) -> str | None:
    """`text` with variable `old` called `new`; None if there is a `new` already."""
    if re.search(rf"(?<![\\A-Za-z]){new}(?![A-Za-z])", text):
        return None
    return re.sub(rf"(?<![\\A-Za-z]){old}(?![A-Za-z])", new, text)
