"""Normalizes the notation of answers: Unicode, spacing, dollars, degrees, fractions."""

import re
from functools import lru_cache

from open_r1.rewards import plain

_DROP = re.compile(
    r"(?<!\\)\\(?:(?:left|right|middle|displaystyle|textstyle|limits|[bB]igg?[lrm]?|q?quad)(?![A-Za-z])"
    r"|phantom\s*+(?:\{[^{}]*\}|.)|[,;:> ()\[\]])|~"
)
_INVISIBLE = dict.fromkeys([0, 0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF])
_UNICODE = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "％": "%",
        "，": ",",
        "（": "(",
        "）": ")",
        "：": ":",
        "；": ";",
        "、": ",",
        "′": "'",
        "’": "'",
    }
    | {"＝": "=", "＜": "<", "＞": ">", "＋": "+", "［": "[", "］": "]", "｛": r"\{", "｝": r"\}", "∣": "|", "｜": "|"}
    | dict.fromkeys("\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(8192, 8203))), " ")
    | {"×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge "}
    | {"≈": r"\approx ", "⋅": r"\cdot ", "∩": r"\cap ", "∀": r"\forall ", "ℤ": r"\mathbb{Z}", "∖": r"\setminus "}
    | {"∪": r"\cup ", "∅": r"\emptyset ", "∈": r"\in ", "±": r"\pm ", "≠": r"\ne ", "ℝ": r"\mathbb{R}", "…": "..."}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
    | _INVISIBLE
)
_GREEK = "αβγδεζηθικλμνξ-πρ-στυφχψω"
_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi - pi rho - sigma tau upsilon phi chi psi"
)
_UNICODE |= {
    ord(letter): f"\\{name} " for letter, name in zip(_GREEK, [*_NAMES.split(), "omega"], strict=True) if name != "-"
}
_CIRCLED = re.compile("[①-⑳](?: *[①-⑳])*")
_HIGH, _LOW, _PLAIN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "₀₁₂₃₄₅₆₇₈₉₋", "0123456789-"
_RAISED = re.compile(f"[{_HIGH}]+|[{_LOW}]+")
_FROM_RAISED = str.maketrans(_HIGH + _LOW, _PLAIN + _PLAIN)
_ROOT = re.compile(r"√\s*+(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_NAMED_BRACKETS = {
    r"\langle": "(",
    r"\rangle": ")",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\lbrack": "[",
    r"\rbrack": "]",
}
_NAMED_BRACKET = re.compile(r"\\[lr](?:angle|brace|brack)(?![A-Za-z])")

_CIRC_TEXT = r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°)"
_CIRC = re.compile(_CIRC_TEXT)
TEMPERATURE = re.compile(rf"{_CIRC_TEXT}\s*(?:\\(?:text|mathrm)\s*\{{\s*)?([CF])(?:\s*\}})?[\s$.]*$")
DEGREES = re.compile(rf"{_CIRC_TEXT}[\s$.]*$")
TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_TURN = re.compile(rf"(?<![\d.])(\d++(?:\.\d++)?)\s*+{_CIRC_TEXT}")
MONEY = re.compile(
    r"\\text\s*\{\s*[€£¥₹]\s*\}|[€£¥₹]|\\(?:euro|pounds)(?![A-Za-z])|^\s*(?:USD|EUR|GBP)(?=\s*\d)|\\\$"
    r"|^\s*\$(?=[^$]*$)|(?<=\d)\$(?=\s*$)"
)

_GROUPED = re.compile(r"(?<=\d)(?:,?\s?\\!\s*+|\{,\}|,\s*\\,|\\,)(?=\d{3})")
_SPACED_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d|/| \d(?!\d*/\d))")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|operatorname|bold|boldsymbol)\s*"
    r"\{([^{}]*)\}"
)
_UPRIGHT = re.compile(
    r"\\(?:(?:mathrm|text)\s*+\{\s*+(?=sin|cos|tan|cot|csc|arc|ln|log|exp|gcd|lcm)|operatorname\*?\s*+\{\s*+)"
    r"(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp|gcd|lcm|max|min)\s*+\}"
)
_ROW_SPACING = re.compile(r"\\\\\s*+\[[^\[\]\\&]{0,20}\]")
_FRAC = re.compile(r"\\[dtc]?(frac|binom)(?![A-Za-z])")
_FRAC_TOKENS = re.compile(r"\\(frac|binom)\s*(\{[^{}]*\}|\\[A-Za-z]+|\w)\s*(\{[^{}]*\}|\\[A-Za-z]+|\w)")
_APPROXIMATELY = re.compile(r"^\\(?:approx|sim|simeq)(?![A-Za-z])\s*")
_SQRT_TOKEN = re.compile(r"\\sqrt\s*(\w)")
_AND_SO_ON = re.compile(r"[.,]\s*+\.\s*+\.\s*+$")
_ITEMS = re.compile(r"(\d), ++(?=\d{3}(?!\d))")
_SPACE = re.compile(r"\s++(?!\d)|(?<!\d)\s++")
_SCRIPT = re.compile(r"([\^_])\{(\w)\}")


def from_unicode(text: str) -> str:
    """`text` with Unicode replaced by ASCII and LaTeX: `x²`, `√2`, `≤`."""
    if text.isascii():
        return text.replace("\0", "")
    text = _CIRCLED.sub(lambda m: ",".join(str(ord(mark) - 0x245F) for mark in m.group() if mark != " "), text)
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = _RAISED.sub(
        lambda m: f"{'^' if m.group()[0] in _HIGH else '_'}{{{m.group().translate(_FROM_RAISED)}}}", text
    )
    return text.translate(_UNICODE)


def clean(answer: str) -> str:
    """`answer` without layout: dollars, spacing commands, marks of degree, variants of fractions, the final period."""
    answer = _GROUPED.sub("", from_unicode(answer).replace("\\!", r"\! ").replace(r"\! ", "\\!"))
    answer = MONEY.sub("", answer.replace("\\!", "")).replace("$", "").replace("\\%", "%")
    answer = _NAMED_BRACKET.sub(lambda m: _NAMED_BRACKETS[m.group()], answer)
    answer = _DROP.sub(" ", answer.replace("{,}", ","))
    if "circ" in answer or "°" in answer:
        answer = _without_degrees(answer)
    answer = _UPRIGHT.sub(r"\\\1 ", _FRAC.sub(r"\\\1", answer))
    answer = _braced(plain.to_latex(answer.strip(" *")))
    answer = _ROW_SPACING.sub(r"\\\\", answer).replace("\\varnothing", "\\emptyset")
    return _without_stop(_APPROXIMATELY.sub("", " ".join(answer.split()).strip(" *")))


def _without_degrees(answer: str) -> str:
    """Without a final degree sign; inside sines and cosines converted to radians, as algebra needs."""
    if TRIGONOMETRY.search(answer):
        answer = _TURN.sub(r"{(\\frac{\1\\pi}{180})}", answer)
    return _CIRC.sub("", DEGREES.sub("", TEMPERATURE.sub("", answer)))


def _without_stop(answer: str) -> str:
    """Without a final period or comma; an ellipsis stays."""
    return answer if _AND_SO_ON.search(answer) else answer.rstrip(".,; ")


def _braced(answer: str) -> str:
    return _FRAC_TOKENS.sub(
        lambda m: f"\\{m[1]}" + "".join(a if a[0] == "{" else f"{{{a}}}" for a in (m[2], m[3])), answer
    )


@lru_cache(maxsize=65_536)
def plain_text(answer: str) -> str:
    """`clean`, with text commands unwrapped."""
    return _without_stop(_WRAPPED.sub(r"\1", clean(answer)).strip()).strip()


@lru_cache(maxsize=65_536)
def canonical(answer: str) -> str:
    """`plain_text` without white space (except between digits), with braces around arguments of a fraction."""
    answer = _SCRIPT.sub(r"\1\2", _SQRT_TOKEN.sub(r"\\sqrt{\1}", plain_text(answer)))
    answer = _SPACED_GROUPS.sub(lambda m: m.group().replace(" ", ""), _ITEMS.sub(r"\1,,", answer))
    return _SPACE.sub("", answer).replace(",,", ", ")
