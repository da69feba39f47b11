"""Compares two answers with math-verify. Runs in worker processes, which can be killed."""

from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from open_r1.rewards import fastpath, numeric, structure
from open_r1.rewards.notation import canonical

# Units are split off before: math-verify's own list would read `3t` as 3.
_NORMALIZATION = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")


def answer(request: dict) -> bool | None:
    """What the worker is asked: whether an answer equals a gold answer, or whether a gold answer can be read."""
    if "answer" in request:
        return equal(request["answer"], request["gold"])
    return readable(request["gold"])


def equal(answer: str, gold: str) -> bool | None:
    """Are the two mathematically the same? None if `gold` cannot be read."""
    pair = structure.same_units(answer, gold)
    return False if pair is None else structure.compare(*pair, same_expression)


def readable(gold: str) -> bool:
    """Can `gold` be read as mathematics, or as a list of what can?"""
    gold, _ = fastpath.measured(gold)
    items = structure.signed(*structure.parts(gold))[2]
    return all(fastpath.is_plain(item) or parsed(item) is not None for item in items)


def same_expression(answer: str, gold: str) -> bool | None:
    """Comparison of single expressions; None if `gold` cannot be read."""
    gold_expression = parsed(gold)
    if gold_expression is None:
        return None
    try:
        answer_expression = parsed(answer)
        if answer_expression is None:
            return False
        if isinstance(gold_expression, (Relational, BooleanAtom)) and (
            _says_nothing(gold_expression) or _says_nothing(answer_expression)
        ):
            return False  # the same text was found to be equal before
        if numeric.same_constant(canonical(answer), canonical(gold)):
            return True
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


def _says_nothing(expression: Any) -> bool:
    """`x=x`, `1=1`, `1<2`: a relation that says nothing, or says it of no variable."""
    if isinstance(expression, BooleanAtom):
        return True
    return isinstance(expression, Relational) and (not expression.free_symbols or expression.lhs == expression.rhs)


@lru_cache(maxsize=8192)
def parsed(answer: str) -> Any:
    """The expression that LaTeX `answer` stands for, None if it cannot be read."""
    latex = answer if answer[:1] in "([" else structure.without_thousands(answer)
    latex = normalize_latex(structure.with_commas(latex), _NORMALIZATION)
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
