"""A histogram as a self-contained SVG, as `open-r1 data stats` writes it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from open_r1.report.svg import GRID, MUTED, PALETTE, chart, figure, ticks

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 54, 42
BINS = 48


def histogram(values: Sequence[float], *, title: str, x_label: str, marks: Mapping[str, float] | None = None) -> str:
    """An `<svg>` with the histogram of `values` (not negative, at least one), and `marks` as lines."""
    highest = float(max(values))
    x_ticks = ticks(0.0, highest or 1.0, most=8)
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, x_ticks[-1]))
    y_ticks = ticks(0.0, float(counts.max()), most=6)

    def across(value: float) -> float:
        return LEFT + value / x_ticks[-1] * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - value / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in y_ticks:
        y = down(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_label(LEFT - 7, y + 4, figure(tick), "end"))
    parts += [_label(across(tick), HEIGHT - BOTTOM + 16, figure(tick), "middle") for tick in x_ticks]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    for count, start, end in zip(counts.tolist(), edges, edges[1:], strict=False):
        if count:
            said = f"{figure(math.ceil(start))} to {figure(math.ceil(end) - 1)}: {count:,}"
            width = across(end) - across(start) - 1
            parts.append(
                f'<rect x="{across(start) + 0.5:.1f}" y="{down(count):.1f}" width="{width:.1f}" '
                f'height="{HEIGHT - BOTTOM - down(count):.1f}" fill="{PALETTE[0]}"><title>{said}</title></rect>'
            )
    for i, (name, value) in enumerate((marks or {}).items()):
        x = across(value)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}" stroke="{PALETTE[1]}" '
            f'stroke-dasharray="3 3"/>'
        )
        parts.append(_label(x + 4, TOP + 6 + 14 * (i % 2), f"{name} {figure(round(value))}", "start"))
    return chart(title, parts, WIDTH, HEIGHT)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{MUTED}">{escape(text)}</text>'
