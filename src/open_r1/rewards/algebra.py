"""Compares two answers with algebra. Runs in worker processes, which can be killed.

Expressions that `expression` parses are compared exactly or numerically with many digits. math-verify compares the
rest (sums, integrals, inequalities in other forms). Its verdict "right" is checked numerically where possible.
"""

import re
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from open_r1.rewards import (
    conditions,
    expression,
    fastpath,
    intervals,
    listing,
    matrices,
    names,
    precise,
    quantity,
    structure,
)
from open_r1.rewards.notation import canonical, plain_text

# Units are split off first: math-verify's own list would read `3t` as 3.
_NORMALIZATION = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
CHECKED_DIGITS = 40
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{4,}")
_WORD_IN_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\s?\{[^{}]*[A-Za-z]{3,}[^{}]*\}")
_BASE = re.compile(r"\d_")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_UNDONE = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)


def answer(request: dict) -> bool | None:
    """Entry point of the worker: whether an answer equals a gold answer, or whether a gold answer can be parsed."""
    if "answer" in request:
        return structure.compare(request["answer"], request["gold"], same_expression)
    return readable(request["gold"])


def readable(gold: str) -> bool:
    """Whether `gold` can be parsed as mathematics, or as a list of such items."""
    amount, _ = quantity.measured(gold)
    value = conditions.split(amount).value
    if intervals.read(value) is not None:
        return True
    rows = matrices.read(value)
    items = listing.read(value).items if rows is None else tuple(cell for row in rows for cell in row)
    return all(_readable(names.split(item).value) for item in items)


def _readable(item: str) -> bool:
    if fastpath.is_plain(item) or expression.parse(plain_text(item)) is not None:
        return True
    inner = listing.read(item)
    if len(inner.items) > 1:
        return all(_readable(names.split(each).value) for each in inner.items)
    return parsed(item) is not None


def same_expression(answer: str, gold: str) -> bool | None:
    """Comparison of single expressions; None if `gold` cannot be parsed."""
    exact = same_value(answer, gold)
    if exact is None:
        exact = same_equation(answer, gold)
    if exact is not None:
        return exact
    if _BASE.search(answer) or _BASE.search(gold) or answer.count("'") != gold.count("'"):
        return False  # math-verify drops bases and primes
    if _has_words(answer) or _has_words(gold):
        return False  # math-verify multiplies their letters
    if _letters(answer) != _letters(gold) and _letters(answer.lower()) == _letters(gold.lower()):
        return False  # math-verify does not tell `X` from `x`
    gold_expression = parsed(gold)
    if gold_expression is None:
        return None
    try:
        answer_expression = parsed(answer)
        if answer_expression is None:
            return False
        if isinstance(gold_expression, (Relational, BooleanAtom)) and (
            _is_trivial(gold_expression) or _is_trivial(answer_expression)
        ):
            return False  # the same text was found to be equal before
        right = verify(
            gold_expression,
            answer_expression,
            timeout_seconds=None,
            allow_set_relation_comp=True,
            raise_on_error=True,
        )
        return bool(right) and not _surely_differ(answer_expression, gold_expression)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return False


def same_value(answer: str, gold: str) -> bool | None:
    """Comparison of expressions that `expression` parses, exact or with many digits; None if undecided."""
    answer, gold = plain_text(answer), plain_text(gold)
    one, other = expression.parse(answer), expression.parse(gold)
    if one is None or other is None:
        return None
    same = precise.same(one, other)
    if same is False and not (expression.symbols(one) or expression.symbols(other)):
        for text, constant in ((answer, other), (gold, one)):
            decimal = quantity.number(canonical(text))
            if decimal is not None and decimal.decimals and decimal.significant >= quantity.MIN_DIGITS:
                return not expression.decimal_digits(constant) and precise.rounds(
                    decimal.number, decimal.decimals, constant
                )
    return same


def same_equation(answer: str, gold: str) -> bool | None:
    """Comparison of two equations, which may differ by a constant factor; None if undecided.

    Only the verdict "right" is certain: `y=1/x` and `xy=1` are equal but not multiples of each other."""
    pairs = []
    for text in (answer, gold):
        left, sign, right = plain_text(text).partition("=")
        sides = expression.parse(left), expression.parse(right)
        if not sign or sides[0] is None or sides[1] is None:
            return None
        pairs.append((sides[0], sides[1]))
    return precise.proportional(*pairs) or None


def _has_words(text: str) -> bool:
    return bool(_WORD.search(text) or _WORD_IN_TEXT.search(text))


def _letters(text: str) -> set[str]:
    """Letters outside commands."""
    return set(_LETTER.findall(plain_text(text)))


def _surely_differ(answer: Any, gold: Any) -> bool:
    """Whether two expressions differ in digits that math-verify ignores (which is allowed for decimals)."""
    if not (isinstance(answer, sympy.Expr) and isinstance(gold, sympy.Expr)) or answer.has(sympy.Float):
        return False
    if gold.has(sympy.Float):
        return False
    variables = sorted(answer.free_symbols | gold.free_symbols, key=str)
    point = {name: sympy.Rational(37 + 11 * number, 29) for number, name in enumerate(variables)}
    difference, size = ((answer - gold).doit().subs(point), gold.doit().subs(point))
    if difference.has(*_UNDONE) or size.has(*_UNDONE):
        return False
    difference, size = sympy.N(difference, CHECKED_DIGITS, maxn=1000), sympy.N(size, CHECKED_DIGITS, maxn=1000)
    if not (difference.is_number and size.is_number) or not difference.is_comparable:
        return False
    return bool(abs(difference) > abs(size) * sympy.Rational(1, 10) ** (CHECKED_DIGITS // 2))


def _is_trivial(expression_read: Any) -> bool:
    """Whether it is a trivial relation, or one without a variable: `x=x`, `1=1`, `1<2`."""
    if isinstance(expression_read, BooleanAtom):
        return True
    return isinstance(expression_read, Relational) and (
        not expression_read.free_symbols or expression_read.lhs == expression_read.rhs
    )


@lru_cache(maxsize=8192)
def parsed(answer: str) -> Any:
    """The expression that LaTeX `answer` denotes, None if it cannot be parsed."""
    latex = answer if answer[:1] in "([" else listing.without_thousands(answer)
    latex = normalize_latex(listing.with_commas(latex), _NORMALIZATION)
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
