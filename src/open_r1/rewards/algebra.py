"""Compares two answers with math-verify. Runs in worker processes, which can be killed.

Lists, tuples, sets, intervals and unions are taken apart here and compared element by element, because
math-verify reads `(3,1)` as an empty open interval; units and bases are read here as well, because it drops them
(`3t` would be 3).
"""

import re
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from open_r1.rewards import fastpath
from open_r1.rewards.units import same_unit, split_unit

MAX_ITEMS = 64
_NORMALIZATION = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_AND = re.compile(r"\s*(?:,|;)?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\b(?:and|or)\b)\s*|\s*;\s*")
_BRACKETS = {"(": ")", "[": "]"}
_MEMBER = re.compile(r"^\s*[A-Za-z](?:_\w)?\s*\\in(?![a-z])\s*")
_NAME = re.compile(r"^\s*(?:[A-Za-z](?:_\w)?|[A-Za-z]\([A-Za-z]\)|\([A-Za-z](?:,\s*[A-Za-z])+\))\s*=\s*(?=[\[(]|\\\{)")


def equal(answer: str, gold: str) -> bool | None:
    """Are the two mathematically the same? None if `gold` cannot be read."""
    answer, answer_unit = split_unit(fastpath.clean(answer))
    gold, gold_unit = split_unit(fastpath.clean(gold))
    if not same_unit(answer_unit, gold_unit):
        return False
    return _equal(answer, gold)


def readable(gold: str) -> bool:
    """Can `gold` be read as mathematics, or as a list of what can?"""
    gold, _ = split_unit(fastpath.clean(gold))
    _, _, items = _structure(gold)
    return all(fastpath.is_plain(item) or parsed(item) is not None for item in items)


def _equal(answer: str, gold: str) -> bool | None:
    if (settled := fastpath.settle(answer, gold)) is not None:
        return settled
    if "\\cup" in gold and "\\cup" in answer:
        return _same_items(_union(answer), _union(gold), ordered=False)
    gold_open, gold_close, golds = _structure(gold)
    open_, close, answers = _structure(answer)
    expand = "\\pm" in gold + answer or "\\mp" in gold + answer
    if len(golds) > 1 and len(answers) > 1 and not expand:
        if gold_open in _BRACKETS:
            if len(golds) == 2 and open_ and (open_, close) != (gold_open, gold_close):
                return False
            return open_ != "{" and _same_items(answers, golds, ordered=True)
        return open_ in ("", "{") and _same_items(answers, golds, ordered=False)
    if len(golds) == 1 and len(answers) > 1 and not open_ and not expand:
        return _all(_equal(answer, gold) for answer in answers)
    return _same_expression(answer, gold)


def _same_expression(answer: str, gold: str) -> bool | None:
    gold_expression = parsed(gold)
    if gold_expression is None:
        return None
    try:
        answer_expression = parsed(answer)
        if answer_expression is None:
            return False
        return bool(
            verify(
                gold_expression,
                answer_expression,
                timeout_seconds=None,
                allow_set_relation_comp=True,
                raise_on_error=True,
            )
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return False


@lru_cache(maxsize=8192)
def parsed(answer: str) -> Any:
    """The expression that LaTeX `answer` stands for, None if it cannot be read."""
    latex = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), answer) if answer[:1] not in "([" else answer
    latex = normalize_latex(_AND.sub(",", latex), _NORMALIZATION)
    candidates = [latex]
    if latex.count("=") > 1 and "," not in latex:
        candidates.append(latex.rpartition("=")[2])
    for candidate in candidates:
        try:
            return latex2sympy(
                candidate,
                is_real=not should_treat_as_complex(candidate),
                convert_degrees=False,
                normalization_config=None,
            )
        except (MemoryError, RecursionError):
            raise
        except Exception:
            continue
    return None


def _structure(answer: str) -> tuple[str, str, list[str]]:
    """`(opening bracket, closing bracket, items)`: `("[", ")", ["1", "2"])` for `[1, 2)`; no brackets for `1, 2`."""
    text = _NAME.sub("", _MEMBER.sub("", answer)).strip()
    opening = closing = ""
    body = text
    if text.startswith("\\{") and text.endswith("\\}"):
        opening, closing, body = "{", "}", text[2:-2]
    elif text[:1] in _BRACKETS and text[-1:] in ")]":
        opening, closing, body = text[0], text[-1], text[1:-1]
    if opening and (items := _split(body)) is not None:
        return opening, closing, items
    joined = _AND.sub(",", answer)
    items = _split(_THOUSANDS.sub(lambda m: m.group().replace(",", ""), joined))
    return "", "", items if items is not None else [answer]


def _split(text: str) -> list[str] | None:
    """Items between commas outside brackets; None if brackets do not match."""
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
    return items if depth == 0 and all(items) and len(items) <= MAX_ITEMS else None


def _union(answer: str) -> list[str]:
    return [part.strip() for part in _MEMBER.sub("", answer).split("\\cup")]


def _same_items(answers: list[str], golds: list[str], ordered: bool) -> bool | None:
    if ordered:
        if len(answers) != len(golds):
            return False
        return _all(_equal(answer, gold) for answer, gold in zip(answers, golds, strict=True))
    left = list(dict.fromkeys(answers))
    missing = list(dict.fromkeys(golds))
    if len(left) != len(missing):
        return False
    for gold in missing:
        match = next((answer for answer in left if _equal(answer, gold)), None)
        if match is None:
            return None if parsed(gold) is None and not fastpath.is_plain(gold) else False
        left.remove(match)
    return True


def _all(verdicts: Any) -> bool | None:
    verdicts = list(verdicts)
    return False if False in verdicts else None if None in verdicts else True
