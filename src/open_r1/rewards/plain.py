r"""Plain notation as LaTeX: `sqrt(3)/2`, `2*pi*r`, `x**2`, `exp(-x)`, `log_2(3)`, as in programs."""

import re

_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|pi"
_NAME = re.compile(rf"(?<![\\A-Za-z])(?:{_GREEK})(?![A-Za-z])")
_INFINITY = re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])")
_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(?:(?P<any>a(?:rc)?(?:sin|cos|tan)|sin|cos|tan|cot|csc|sinh|cosh|tanh|ln|log)"
    r"(?=[ ]?[(^_\\]|[ ][A-Za-z0-9](?![A-Za-z]))|(?P<bracketed>sec|max|min|gcd|lcm|floor|ceil)(?=\())"
)
_FULL = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_BASE = re.compile(r"(?<![\\A-Za-z])log(2|10)(?=\()")
_CALL = re.compile(
    r"(?<![\\A-Za-z])(?P<name>\\?sqrt|cbrt|exp|abs)[ ]?\(|(?<![\\A-Za-z])sqrt[ ]?(?P<token>\d+|[A-Za-z](?![A-Za-z]))"
)
_RAISED = re.compile(r"\^[ ]?(-?\d{2,}|-\d)(?![.\d])|\^(?=\()")
_FORMS = {"sqrt": (r"\sqrt{", "}"), "cbrt": (r"\sqrt[3]{", "}"), "exp": ("e^{", "}"), "abs": ("|", "|")}


def to_latex(text: str) -> str:
    r"""`3*sqrt(5)/7` as `3*\sqrt{5}/7`; LaTeX stays unchanged, except that `x^10` becomes `x^{10}`."""
    text = text.replace("**", "^")
    if "sqrt" in text or "exp" in text or "abs" in text or "cbrt" in text:
        text = _with_calls(text)
    text = _NAME.sub(lambda match: f"\\{match.group()} ", text)
    text = _INFINITY.sub(r"\\infty ", text)
    text = _BASE.sub(r"\\log_{\1}", text)
    text = _FUNCTION.sub(lambda match: f"\\{_FULL.get(match.group(), match.group())} ", text)
    return _with_exponents(text)


def _with_calls(text: str) -> str:
    """`sqrt(...)` and similar calls with LaTeX's braces; unclosed calls stay."""
    closing = matching(text)
    replaced: list[tuple[int, int, str]] = []
    for call in _CALL.finditer(text):
        if call["token"]:
            replaced.append((call.start(), call.end(), rf"\sqrt{{{call['token']}}}"))
        elif (end := closing.get(call.end() - 1)) is not None:
            before, after = _FORMS[call["name"].lstrip("\\")]
            replaced += [(call.start(), call.end(), before), (end, end + 1, after)]
    return _replace(text, replaced)


def _with_exponents(text: str) -> str:
    """`x^(n+1)` as `x^{(n+1)}` and `x^10` as `x^{10}`."""
    if "^" not in text:
        return text
    closing = matching(text)
    replaced: list[tuple[int, int, str]] = []
    for power in _RAISED.finditer(text):
        if power[1]:
            replaced.append((power.start(1), power.end(1), f"{{{power[1]}}}"))
        elif (end := closing.get(power.end())) is not None:
            replaced += [(power.end(), power.end() + 1, "{("), (end, end + 1, ")}")]
    return _replace(text, replaced)


def _replace(text: str, replaced: list[tuple[int, int, str]]) -> str:
    pieces, position = [], 0
    for start, end, new in sorted(replaced):
        pieces += [text[position:start], new]
        position = end
    return "".join([*pieces, text[position:]])


def matching(text: str) -> dict[int, int]:
    """Maps the position of each opening parenthesis to that of its closing one."""
    stack: list[int] = []
    closing: dict[int, int] = {}
    for position, character in enumerate(text):
        if character == "(":
            stack.append(position)
        elif character == ")" and stack:
            closing[stack.pop()] = position
    return closing
