"""Finds the final answer in a completion, and the gold answer in a dataset's column.

It takes linear time, and reads only the last 20,000 characters.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from open_r1.rewards import choices

WINDOW = 20_000
MAX_GAP = 40
MAX_COUNTED = 200
_SEPARATOR = re.compile(r",|;|\band\b|\bor\b|&")
_BRACES = re.compile(r"(?P<boxed>\\f?boxed\s*+\{)|\\.|[{}]", re.DOTALL)
_BARE_BOXED = re.compile(r"\\f?boxed\s++(-?[0-9A-Za-z.,]+)")
_JOINT_LAYOUT = re.compile(r"\\text\s?\{|\\[()\[\]]|\\quad|[${}*]")
_JOINT = re.compile(
    r"\s*+(?P<words>(?:\(?[A-Za-z]+\)?\s+){0,4})\(?(?:[,;]\s*+(?:and\b|or\b|&)?|and\b|or\b|&)\s*+(?:\\?[A-Za-z]+_?\w?'?(?:\([a-z]\))?\s?=)?\s*+"
    r"|[\s.]*+"
)
_NO_JOINT = re.compile(
    r"\b(?:but|not|no|is|was|are|so|then|we|i|it|actually|wait|thus|hence|therefore|instead|final|answer|rather|which|"
    r"gives?|giving|gets?|check|if|first|because|since|that|this|because|yields?|becomes?|minus|plus|times)\b",
    re.IGNORECASE,
)
_ANSWER_BLOCK = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_ANCHOR = re.compile(
    r"####[ \t]*|(?:\b(?:final |correct )?(?:answer|result)|\bcorrect (?:option|choice))s?\b[*_]*+"
    r"(?:[^.\n:=]{0,60}?\bis\b(?:[ \t]*+:)?|[ \t]*+[:=])[*_\s]*+"
    r"|(?:答案|结果)[*_]*+(?:应该|应)?(?:是|为|等于|[:：=])[*_\s:：]*+|(?:故|应|所以)选[*_\s:：]*+",
    re.IGNORECASE,
)
_ANCHOR_WORDS = ("####", "answer", "result", "option", "choice", "答案", "结果", "选")
"""Each anchor contains one of these in some case. Searching for them first is much faster."""
_MATH = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\$(?<![\\\d]\$)(?P<b>[^$\n]+)\$"
    r"|\\\((?P<c>(?:(?!\\\().)+?)\\\)|\\\[(?P<d>(?:(?!\\\[).)+?)\\\]",
    re.DOTALL,
)
_MATH_SIGNS = ("$", "\\(", "\\[")
"""Each formula begins with one of these."""
_NUMBER = re.compile(
    r"(?=[-−+$€£¥\d.])(?<![A-Za-z0-9_.])[-−+]?[$€£¥]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?\s?\\?%?"
)
_BETWEEN_ITEMS = re.compile(r"[\s,;/&|，、；]*+(?:or|and|或|和)?[\s,;/&|，、；]*+", re.IGNORECASE)
_COUNTED = re.compile(r"\$?-?\d[\d,.]*\$?(?: [A-Za-z]+){1,3}(?:(?:,|,? and) \$?-?\d[\d,.]*\$?(?: [A-Za-z]+){1,3})+")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_NEXT_SENTENCE = re.compile(r"\.\s++(?=[A-Z])(?!(?:Or|Maybe|Perhaps|Possibly|Alternatively)\b)|。|；")
_REMARK = re.compile(r"(?<!\\)\((?=[^()]*[A-Za-z]{3})[^()]*\)")
_EMPHASIS = "*_ \t"
_NOT_BUT = re.compile(r"^not\b[^.]*?\bbut\b\s*+", re.IGNORECASE)
_POINTER = re.compile(r"\b(?:above|see|boxed?|stated|given|shown|earlier|before)\b", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s*+\{[^{}]*\}|\\[A-Za-z]+")


def boxed_contents(text: str) -> list[tuple[int, int, str]]:
    """`(start, end, content)` of every complete outermost `\\boxed{...}`, in order; braces are balanced."""
    open_braces: list[tuple[int, int, bool]] = []
    found: list[tuple[int, int, str]] = []
    for token in _BRACES.finditer(text):
        if token["boxed"] or token.group() == "{":
            open_braces.append((token.start(), token.end(), bool(token["boxed"])))
        elif token.group() == "}" and open_braces:
            start, content_start, is_boxed = open_braces.pop()
            if is_boxed:
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, token.end(), text[content_start : token.start()]))
    return found


_HEDGE = re.compile(r"\b(?:either|or|maybe|perhaps|possibly|could|might|between)\b|或|可能", re.IGNORECASE)
MAX_NESTED_BOXES = 5


def last_boxed(text: str) -> str | None:
    """Content of the last box. Boxes joined by a comma or `and` are one answer: `1,2` for two boxes."""
    if "boxed" not in text:
        return None
    found = boxed_contents(text)
    if not found:
        bare = _BARE_BOXED.findall(text)
        return bare[-1] if bare else None
    run = [found[-1]]
    for box in reversed(found[:-1]):
        if not _are_joined(text[box[1] : run[0][0]]):
            break
        run.insert(0, box)
    contents = [content.strip() for _, _, content in run]
    if len(contents) > 1 and len(set(contents)) > 1:
        return ",".join(contents)
    content = contents[-1]
    for _ in range(MAX_NESTED_BOXES):
        inner = boxed_contents(content) if "boxed" in content else []
        if not inner or not inner[-1][2].strip():
            break
        content = inner[-1][2].strip()
    return content


def _are_joined(between: str) -> bool:
    """Whether only a comma or `and`, and the counted things, stand between two boxes."""
    if len(between) > MAX_GAP:
        return False
    bare = _JOINT_LAYOUT.sub(" ", between)
    joint = _JOINT.fullmatch(bare)
    return bool(joint and _SEPARATOR.search(bare) and not _NO_JOINT.search(bare))


@dataclass(frozen=True)
class Found:
    """A final answer, and where it was found: `block`, `box`, `sentence`, `last line` or `last value`."""

    answer: str
    place: str


def extract_answer(completion: str) -> str | None:
    """The final answer of a completion, or None if it gives none; `find_answer` says where it was."""
    found = find_answer(completion)
    return found.answer if found else None


def find_answer(completion: str) -> Found | None:
    """The final answer of a completion, or None if it gives none.

    Unfinished reasoning gives none. The search starts after the last `</think>` (at the beginning if there are no think
    tags), in this order: the last `<answer>` block, the last `\\boxed{}`, the last "the answer is ...", a choice letter
    in the last line, the last formula or number. A bare enumeration counts as one answer: listing candidates scores
    nothing.
    """
    text = completion.rpartition("</think>")[2]
    if "<think>" in text:
        return None
    return _find_in(text[-WINDOW:])


@lru_cache(maxsize=8192)
def _find_in(part: str) -> Found | None:
    """`find_answer` in the text after the reasoning. Cached, because rewards and metrics need the same completions."""
    blocks = _ANSWER_BLOCK.findall(part)
    if blocks and not _points_elsewhere(blocks[-1]):
        answer = _from_block(blocks[-1].strip())
        return Found(answer, "block") if answer else None
    finders = {"box": last_boxed, "sentence": _from_anchor, "last line": choices.last_line, "last value": _last_value}
    for place, find in finders.items():
        if answer := find(part):
            return Found(answer, place)
    return None


def last_block(completion: str) -> str | None:
    """The content of the last `<answer>` block after the reasoning, with its line breaks; None if there is none."""
    text = completion.rpartition("</think>")[2]
    blocks = _ANSWER_BLOCK.findall(text[-WINDOW:]) if "<think>" not in text else []
    return (blocks[-1].strip() or None) if blocks else None


def _points_elsewhere(block: str) -> bool:
    """Whether an answer block is empty, or refers elsewhere, as in `see the box above`."""
    if not block.strip():
        return True
    return bool(is_prose(block) and _POINTER.search(block) and not _values(block) and last_boxed(block) is None)


def extract_gold(gold: str) -> str:
    """The answer in a gold column: boxed, after `####`, between dollars, at the end of a worked solution, or all of
    it."""
    gold = gold.strip()
    answer = last_boxed(gold[-WINDOW:])
    if answer is not None:
        return answer
    if "####" in gold:
        return gold.rpartition("####")[2].strip()
    if "\n" in gold and len(_WORD.findall(_TEXT_COMMAND.sub(" ", gold))) > 5:
        return _from_anchor(gold[-WINDOW:]) or _last_value(gold[-WINDOW:]) or gold
    return gold


def _from_block(block: str) -> str | None:
    boxed = last_boxed(block)
    if boxed is not None:
        return boxed
    if (not is_prose(block) and not _CHINESE.search(block)) or choices.letter(block) or _is_counted(block):
        return _unwrapped(block) or None
    return _from_anchor(block) or _last_value(block) or block


def _from_anchor(text: str) -> str | None:
    folded = text.casefold()
    anchors = list(_ANCHOR.finditer(text)) if any(word in folded for word in _ANCHOR_WORDS) else []
    if not anchors:
        return None
    sentence = text[anchors[-1].end() :].split("\n", 1)[0].strip()
    sentence = _NEXT_SENTENCE.split(sentence)[0].strip().rstrip(".").strip(_EMPHASIS)
    sentence = _NOT_BUT.sub("", sentence)
    if not _HEDGE.search(sentence):
        sentence = _without_remark(sentence)
    if not sentence:
        return None
    if not is_prose(sentence) and not _CHINESE.search(sentence):
        return _unwrapped(sentence)
    if choices.letter(sentence) or _is_counted(sentence):
        return sentence
    found = _values(sentence)
    values = list(dict.fromkeys(value[2] for value in found))
    if len(values) > 1 and _HEDGE.search(sentence):
        return ",".join(values)
    return ",".join(_enumerated(sentence, found)) if values else sentence


def _is_counted(text: str) -> bool:
    """`9 chickens and 10 rabbits`."""
    return len(text) <= MAX_COUNTED and bool(_COUNTED.fullmatch(text))


def _without_remark(sentence: str) -> str:
    """Without words in parentheses at the end: `5 (not 6)`."""
    head = sentence.rstrip(" .\t")
    start = head.rfind("(")
    return head[:start].rstrip() if start >= 0 and _REMARK.fullmatch(head, start) else sentence


def _enumerated(text: str, values: list[tuple[int, int, str]]) -> list[str]:
    """The first of `values`, and those enumerated together with it."""
    count = 1
    while count < len(values) and _joins(text, values[count - 1][1], values[count][0]):
        count += 1
    return [value[2] for value in values[:count]]


def _joins(text: str, start: int, end: int) -> bool:
    return end - start <= MAX_GAP and bool(_BETWEEN_ITEMS.fullmatch(text, start, end))


def _unwrapped(text: str) -> str:
    formula = _MATH.fullmatch(text)
    return next(group for group in formula.groups() if group).strip() if formula else text


def is_prose(text: str) -> bool:
    """Whether `text` has several plain words outside LaTeX commands."""
    return len(_WORD.findall(_TEXT_COMMAND.sub(" ", text))) > 1 or bool(_MATH.search(text) and _WORD.search(text))


def _last_value(text: str) -> str | None:
    """The last formula or number, with everything enumerated together with it."""
    values = _values(text)
    if not values:
        return None
    run = [values[-1]]
    for value in reversed(values[:-1]):
        if not _joins(text, value[1], run[-1][0]):
            break
        run.append(value)
    return ", ".join(value[2] for value in reversed(run))


def _values(text: str) -> list[tuple[int, int, str]]:
    """Formulas, and the numbers outside them, as `(start, end, value)` in order."""
    formulas = list(_MATH.finditer(text)) if any(sign in text for sign in _MATH_SIGNS) else []
    values = [(m.start(), m.end(), next(g for g in m.groups() if g).strip()) for m in formulas]
    outside = _MATH.sub(lambda m: " " * len(m.group()), text) if formulas else text
    values += [(m.start(), m.end(), m.group().strip().rstrip(",")) for m in _NUMBER.finditer(outside)]
    return sorted(values)
