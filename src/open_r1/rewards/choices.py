"""Choice letters: `B`, `(B)`, `Option B`, `B. 42`, `**B**`, `D, not B`; never two at once."""

import re

_CHOICE = re.compile(r"\(?([A-Z])\)?(?:[).:,].*)?", re.DOTALL)
_SMALL = re.compile(r"\(?[a-z]\)?\.?")
_LETTER = re.compile(r"\(?[A-Z][).:]?")
_LABEL = re.compile(r"(?<![A-Za-z])\(?([A-Z])(?=\)? ?[).:,])|(?:[,;/&]|\band|\bor) ?\(?([A-Z])\)?$")
_CHOSEN = re.compile(
    r"^(?:the )?(?:correct |final |best |right )?(?:option|choice|answer)(?: is)?(?::|\s)\s*+"
    r"(?=\(?[A-Za-z]\)?(?:$|[\s.:)]))",
    re.IGNORECASE,
)
_NOT = re.compile(r"[,;]? ?(?:and )?\(?\bnot \(?[A-Z]\)?[).]{0,3}$")
_REASON = re.compile(r"^(\(?[A-Z]\)?)[,;]?\s++(?:because|since|as|due|by|for)\b.*+$", re.DOTALL)
_DENIED = re.compile(
    r"\b(?:is|are|was)\s++(?:false|wrong|incorrect|not|excluded|impossible|ruled)\b|\bisn't\b|\bis not\b|不对|错误"
)
_HEDGE = re.compile(r"\b(?:but|or|and|also|maybe|perhaps|possibly|could|might)\b")
_ANOTHER = re.compile(r"\b(?:answer|option|choice)\b[^.\n]{0,40}?\b(?:is|:)?\s*+\(?([A-Z])(?![A-Za-z])")
_STARS = re.compile(r"\*\*|__")


def option(text: str) -> str:
    """`Option B` and `The answer is (B)` as `B` and `(B)`; other text unchanged."""
    return _CHOSEN.sub("", _STARS.sub("", text))


def letter(text: str) -> str | None:
    """The letter that plain `text` chooses; "" if it names several or excludes one, None if it is not a choice."""
    text = _NOT.sub("", option(text)).strip()
    if _SMALL.fullmatch(text):
        text = text.upper()
    if reason := _REASON.match(text):
        text = reason[1]
    chosen = _CHOICE.fullmatch(text)
    if chosen is None:
        return None
    rest = text[chosen.end(1) :]
    others = {*sum(_LABEL.findall(rest), ()), *_ANOTHER.findall(rest)} - {chosen[1], ""}
    return "" if others or _DENIED.search(rest) or (rest[:1] == "," and _HEDGE.search(rest)) else chosen[1]


def is_letter(text: str) -> bool:
    """Whether plain `text` is only a choice letter."""
    return bool(_LETTER.fullmatch(text))


def same(answer: str, gold: str) -> bool | None:
    """Whether plain `answer` chooses the letter `gold`; None unless both are choices."""
    gold = option(gold)
    if not is_letter(gold):
        return None
    chosen = letter(answer)
    return None if chosen is None else chosen == gold.strip("().:")


_ALONE = re.compile(r"(?:\*\*|__)?\(?([A-Z])\)?(?:\*\*|__)?\.?")
_LABELED = re.compile(r"(?:\*\*|__)?(?:\(([A-Z])\)|([A-Z])[.):])(?:\*\*|__)?[ \t]++\S[^\n]{0,200}")


def last_line(text: str) -> str | None:
    """The choice letter alone in the last line (`C`, `**B**`), or labels it (`(C) 42`); None if there is none."""
    line = text.rstrip().rpartition("\n")[2].strip()
    alone = _ALONE.fullmatch(line) if len(line) < 12 else None
    if alone:
        return alone[1]
    labeled = _LABELED.fullmatch(line)
    return line if labeled and letter(_STARS.sub("", line)) else None
