"""Problems as sequences of tokens, independent of case, white space and LaTeX's alternative spellings."""

import re
import unicodedata

_SAME = (
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])"), " "),
    (re.compile(r"\\(?:text|mathrm|mathbf|mathit|textbf|textit|operatorname|mbox|emph|mathbb)\s*(?=\{)"), " "),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\(?:ldots|dots|cdots|dotsc)(?![A-Za-z])|…"), " ... "),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])|[×·⋅]"), "*"),
    (re.compile(r"\\degree(?![A-Za-z])|°"), r"^\\circ"),
    (re.compile(r"≤"), r"\\le "),
    (re.compile(r"≥"), r"\\ge "),
    (re.compile(r"−|–"), "-"),
    (re.compile(r"\\[,;:!> ]|\\\\|[~$]|\\[()\[\]]|\\%|[{}]"), " "),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
)
_TOKEN = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?|[-+*/=<>^_!|]")
_NUMBER = re.compile(r"\d")


def tokens_of(text: str) -> list[str]:
    """The words, numbers and operators of `text` in lower case, without punctuation, braces and spacing."""
    text = unicodedata.normalize("NFKC", text)
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return _TOKEN.findall(text.lower())


def numbers_of(tokens: list[str]) -> list[str]:
    """The numbers among `tokens`, sorted."""
    return sorted(token for token in tokens if _NUMBER.match(token))
