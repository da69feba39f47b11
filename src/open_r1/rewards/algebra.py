"""Compares two answers with math-verify. Runs in worker processes, which can be killed."""

from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_CONFIG = [
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=True
        ),
    ),
    ExprExtractionConfig(),
]


@lru_cache(maxsize=4096)
def parsed(answer: str) -> tuple[Any, ...]:
    """Expressions that `answer` may stand for; empty if it cannot be read."""
    found = parse(f"${answer}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)
    return tuple(found)


def equal(answer: str, gold: str) -> bool | None:
    """Are the two mathematically the same? None if `gold` cannot be read."""
    gold_expressions = parsed(gold)
    if not gold_expressions:
        return None
    try:
        answer_expressions = parsed(answer)
    except Exception:
        return False
    if not answer_expressions:
        return False
    return bool(verify(list(gold_expressions), list(answer_expressions), timeout_seconds=None))
