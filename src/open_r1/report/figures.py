"""Formats numbers for pages and consoles."""

import math
from collections.abc import Mapping
from typing import Any

LONGEST_FIGURE = 6
"""Significant digits of the numbers in a page."""


def rounded(value: float | None) -> float | None:
    """A number with few digits, as pages show it. None if it is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{LONGEST_FIGURE}g}")


def finite(value: Any) -> Any:
    """`value` for JSON: None replaces each number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """`48 s`, `5 min 12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def clock(seconds: float) -> str:
    """`5:12`, `1:05:12`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
