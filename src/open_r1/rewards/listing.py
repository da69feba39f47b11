r"""Splits lists, tuples and sets: `1, 2`, `(1, 2)`, `\{1, 2\}`, `x=1 \text{ or } x=2`, `1 \pm \sqrt 2`."""

import re
from dataclasses import dataclass
from itertools import product

from open_r1.rewards import names

MAX_SIGNS = 3
MAX_FORMS = 64
_OPPOSITE = {"+": "-", "-": "+"}
_THOUSANDS = re.compile(r"(?<![\d,.(\[])\d{1,3}(?:,\d{3})++(?![\d,)\]])")
_AND = re.compile(
    r"(?:,|;)?+ ?\\text\s?\{\s?,?\s?(?:and|or)\s?,?\s?\} ?|(?:,|;)?+ ?(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]) ?| ?; ?"
)
_AND_IN_TEXT = re.compile(r"\\text\s?\{([^{}]{1,60}?)\s(and|or)(?:\s([^{}]{0,60}))?\}")
_MEMBER = re.compile(r"^ ?[A-Za-z](?:_\w)? ?\\in(?![a-z]) ?")
_SET_NAME = re.compile(r"^ ?(?:[A-Za-z](?:_\w)?|[A-Za-z]\([A-Za-z]\)) ?= ?(?=[\[(]|\\\{)")
_SIGNS = re.compile(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])")
BRACKETS = {"(": ")", "[": "]"}


@dataclass(frozen=True)
class Collection:
    """`opening` is `(` or `[` for a tuple, `{` for a set, "" for a list without brackets or a single value.

    `names` are those of the items: all different, in order; None if they have none, or all the same one.
    """

    opening: str
    closing: str
    items: tuple[str, ...]
    names: tuple[str, ...] | None = None
    labels: bool = False

    @property
    def is_tuple(self) -> bool:
        """Whether its order matters."""
        return self.opening in BRACKETS


def read(text: str) -> Collection:
    """The collection in cleaned `text`; a single value is a list of one."""
    found = names.tuple_names(text)
    if found and (items := split(found[1][1:-1])) is not None and _encloses(found[1]) and len(items) == len(found[0]):
        return Collection("", "", tuple(items), tuple(found[0]))
    if found and not _encloses(found[1]):
        text = found[1]  # `(x, y) = (5, 8) and (8, 5)`
    body = _SET_NAME.sub("", _MEMBER.sub("", text)).strip()
    opening = closing = ""
    inner = body
    if body.startswith("\\{") and body.endswith("\\}") and _encloses(body[1:-2] + "}"):
        opening, closing, inner = "{", "}", body[2:-2]
    elif body[:1] in BRACKETS and body[-1:] in (")", "]") and _encloses(body):
        opening, closing, inner = body[0], body[-1], body[1:-1]
    if opening and (items := split(inner)) is not None:
        if opening in BRACKETS and any(map(_SIGNS.search, items)) and len(items) > 1:
            return _every_tuple(opening, closing, items)
        return Collection(opening, closing, tuple(items if opening in BRACKETS else _expanded(items)))
    return _listed(text)


def _listed(text: str) -> Collection:
    """Values between commas, with their names."""
    groups = _groups(text)
    if groups is not None:
        return Collection("", "", groups)
    items = split(without_thousands(with_commas(text)))
    if items is None:
        return Collection("", "", (text,))
    named = [names.split(item) for item in items]
    given = [each.name for each in named]
    if len(items) > 1 and None not in given and len(set(given)) == len(given):
        labels = any(each.words for each in named)
        return Collection("", "", tuple(each.value for each in named), tuple(map(str, given)), labels)
    if len(items) > 1 and given[0] and len(set(given) - {None}) == 1 and not named[0].parameters:
        items = [each.value for each in named]
    return Collection("", "", tuple(_expanded(items)))


def _groups(text: str) -> tuple[str, ...] | None:
    """`p=5,q=2;p=7,q=2` as the tuples `(5,2)` and `(7,2)`; None for anything else."""
    items = split(without_thousands(with_commas(text)))
    named = [names.split(item) for item in items or []]
    order = list(dict.fromkeys(each.name for each in named))
    size = len(order)
    if size < 2 or None in order or len(named) < 2 * size or len(named) % size:
        return None
    if [each.name for each in named] != order * (len(named) // size):
        return None
    values = [each.value for each in named]
    return tuple(f"({','.join(values[start : start + size])})" for start in range(0, len(values), size))


def _every_tuple(opening: str, closing: str, items: list[str]) -> Collection:
    r"""`(\pm 1, \pm 2)` as the four points."""
    forms = [both_ways(item) for item in items]
    count = 1
    for each in forms:
        count *= len(each)
    if count > MAX_FORMS:
        return Collection(opening, closing, tuple(items))
    return Collection("", "", tuple(f"{opening}{','.join(chosen)}{closing}" for chosen in product(*forms)))


def _expanded(items: list[str]) -> list[str]:
    if not any(map(_SIGNS.search, items)):
        return items
    forms: list[str] = []
    for item in items:
        inner = read(item) if item[:1] in BRACKETS and "," in item else None
        forms += inner.items if inner and not inner.is_tuple else both_ways(item)
    return forms


def both_ways(item: str) -> list[str]:
    r"""`1 \pm 2` as `1 + 2` and `1 - 2`; several `\pm` vary independently, `\mp` is opposite to `\pm`."""
    found = _SIGNS.findall(item)
    if not found or len(found) > MAX_SIGNS:
        return [item]
    pieces = _SIGNS.split(names.split(item).value)
    together = "\\mp" in found
    forms = []
    for way in product("+-", repeat=1 if together else len(found)):
        chosen = way * len(found) if together else way
        signs = [_OPPOSITE[sign] if name == "\\mp" else sign for sign, name in zip(chosen, found, strict=True)]
        form = pieces[0] + "".join(sign + piece for sign, piece in zip(signs, pieces[1:], strict=True))
        forms.append(form.strip().removeprefix("+"))
    return forms


def has_signs(collection: Collection) -> bool:
    r"""Whether there is a `\pm` that was not expanded."""
    return any(map(_SIGNS.search, collection.items))


def as_point(collection: Collection) -> tuple[str, ...]:
    """Its items in the order of coordinates."""
    order = names.in_order(list(collection.names)) if collection.names else range(len(collection.items))
    return tuple(collection.items[position] for position in order)


def without_thousands(text: str) -> str:
    """`1,234` as `1234`."""
    return _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)


def with_commas(text: str) -> str:
    """`and`, `or` and semicolons as commas."""
    if "text" in text:
        text = _AND_IN_TEXT.sub(_apart, text)
    return _AND.sub(",", text)


def _apart(match: re.Match[str]) -> str:
    r"""`\text{ goats and }` as `\text{ goats}` and a comma."""
    behind = f"\\text{{{match[3]}}}" if match[3] and match[3].strip() else ""
    return f"\\text{{{match[1]}}},{behind}" if match[1].strip(" ,") else match.group()


def _encloses(text: str) -> bool:
    """Whether the last bracket closes the first."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return position == len(text) - 1
    return False


def split(text: str) -> list[str] | None:
    """Items between commas outside brackets; None if brackets do not match or an item is empty."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif character == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    items.append(text[start:].strip())
    return items if depth == 0 and all(items) else None
