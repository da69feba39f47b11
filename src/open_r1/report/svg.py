"""Parts of charts as SVG, legible in light and dark mode. `assets/charts.js` draws the charts of pages."""

import math
from collections.abc import Sequence
from html import escape

PALETTE = ("#2f6fe0", "#cf3a85", "#b8690c", "#16a085", "#8b6cef", "#7a8290")
INK, MUTED, GRID = "var(--ink, #6b7280)", "var(--muted, #7a8290)", "var(--grid, #9ca3af55)"


def chart(title: str, parts: Sequence[str], width: int, height: int) -> str:
    """An `<svg>` of `parts` with a title above them."""
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{escape(title)}</title>{"".join(parts)}'
        f'<text x="0" y="14" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text></svg>'
    )


def as_file(svg: str) -> str:
    """The chart as a separate file, with colors that follow the reader's light or dark setting."""
    start = svg.index(">") + 1
    style = (
        "<style>:root{--ink:#1d2330;--muted:#5d6678;--grid:#d9dce3}@media(prefers-color-scheme:dark)"
        "{:root{--ink:#e8eaf0;--muted:#a0a9ba;--grid:#343b49}}</style>"
    )
    return svg[:start] + style + svg[start:] + "\n"


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten apart) from `low` to at least `high`.

    With `whole` they are whole numbers that stay within the range.
    """
    high = high if high > low else low + 1
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most - 1)
    if whole:
        step = max(1.0, step)
        first, last = math.ceil(low / step), math.floor(high / step + 1e-9)
    else:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(count * step, 12) for count in range(first, max(last, first) + 1)]


def figure(value: float, percent: bool = False) -> str:
    """A number as an axis shows it: `62%`, `1,200`, `0.25`, `3e-07`."""
    if percent:
        return f"{value:.0%}" if abs(value * 100 - round(value * 100)) < 1e-6 else f"{value:.1%}"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"
