"""Line charts of metrics as SVG files, legible in light and dark mode. `results.py` of several examples draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from open_r1.report.svg import GRID, INK, MUTED, PALETTE, as_file, chart, figure, ticks

DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4")
MOST_POINTS = 240
"""Longer series are averaged over equal intervals (the last one may be shorter), so that a chart of 10,000 steps stays
small."""

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 54, 40
LEGEND_ROW = 18


@dataclass(frozen=True)
class Series:
    """One line: `y` over `x`; values that are None or not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str | None = None


@dataclass(frozen=True)
class Chart:
    """An `<svg>` of `WIDTH`."""

    svg: str
    height: int


def metric_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], charts: Sequence[tuple[str, str, bool]], columns: int = 2
) -> str:
    """The text of an SVG file with a line for each run in each of `charts`: metric, title, and whether it is a share
    of 1."""
    drawn = []
    for key, title, percent in charts:
        lines = [Series(name, [s["step"] for s in steps], [s.get(key) for s in steps]) for name, steps in runs.items()]
        drawn.append(line_chart(lines, title=title, x_label="step", percent=percent, from_zero=percent))
    return grid(drawn, columns)


@dataclass(frozen=True)
class _Scale:
    """Maps values to positions in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    bottom: int

    def across(self, value: float) -> float:
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return self.bottom - share * (HEIGHT - TOP - BOTTOM)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    percent: bool = False,
    from_zero: bool = True,
) -> Chart:
    """A chart with axes, ticks and a legend; lines differ in color and dash.

    `percent` shows shares of 1 as percentages on a scale that ends at 100%. `from_zero` starts the scale at 0.
    """
    shortened = [_shortened(one) for one in series]
    xs = np.concatenate([x for x, _ in shortened]) if shortened else np.array([])
    ys = np.concatenate([y for _, y in shortened]) if shortened else np.array([])
    ys = ys[np.isfinite(ys)]
    if not len(xs) or not len(ys):
        return Chart(chart(title, [f'<text x="0" y="40" fill="{MUTED}">nothing was logged</text>'], WIDTH, 60), 60)
    low = min(0.0, float(ys.min())) if from_zero else float(ys.min())
    high = 1.0 if percent and ys.max() <= 1 else float(ys.max())
    x_ticks = ticks(float(xs.min()), float(xs.max()), most=7, whole=True)
    y_ticks = ticks(low, high, most=6)
    legend, rows = _legend(series)
    height = HEIGHT + (rows - 1) * LEGEND_ROW
    place = _Scale(
        x=(float(xs.min()), max(float(xs.max()), float(xs.min()) + 1)),
        y=(y_ticks[0], y_ticks[-1]),
        bottom=height - BOTTOM,
    )
    parts = [_axes(x_ticks, y_ticks, place, x_label, percent)]
    for index, (one, (x, y)) in enumerate(zip(series, shortened, strict=True)):
        parts.append(_line(x, y, place, _color(one, index), DASHES[index % len(DASHES)]))
    parts.append(legend)
    described = "; ".join(_in_words(one, percent) for one in series)
    return Chart(chart(title, [f"<desc>{escape(described)}</desc>", *parts], WIDTH, height), height)


def grid(charts: Sequence[Chart], columns: int) -> str:
    """A grid of charts as the text of an SVG file. All rows are as high as the highest chart."""
    gap = 24
    row_height = max(one.height for one in charts)
    width, height = columns * (WIDTH + gap) - gap, -(-len(charts) // columns) * (row_height + gap) - gap
    placed = []
    for index, one in enumerate(charts):
        x, y = index % columns * (WIDTH + gap), index // columns * (row_height + gap)
        placed.append(one.svg.replace("<svg", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{one.height}"', 1))
    return as_file(f'<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">{"".join(placed)}</svg>')


def _shortened(one: Series) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(one.x, dtype=float)
    y = np.array([math.nan if value is None else value for value in one.y], dtype=float)
    y[~np.isfinite(y)] = math.nan
    if len(x) <= MOST_POINTS:
        return x, y
    length = math.ceil(len(x) / MOST_POINTS)
    stretches = np.split(np.arange(len(x)), range(length, len(x), length))
    means = [np.nanmean(y[s]) if np.isfinite(y[s]).any() else math.nan for s in stretches]
    return np.array([x[s].mean() for s in stretches]), np.array(means)


def _axes(x_ticks: list[float], y_ticks: list[float], place: _Scale, x_label: str, percent: bool) -> str:
    parts = []
    for tick in y_ticks:
        y = place.down(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        label = figure(tick, percent)
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">{label}</text>')
    for tick in x_ticks:
        x = place.across(tick)
        parts.append(
            f'<text x="{x:.1f}" y="{place.bottom + 16}" text-anchor="middle" fill="{MUTED}">{figure(tick)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    y = place.bottom + BOTTOM - 6
    parts.append(f'<text x="{middle}" y="{y}" text-anchor="middle" fill="{MUTED}">{escape(x_label)}</text>')
    return "".join(parts)


def _line(x: np.ndarray, y: np.ndarray, place: _Scale, color: str, dash: str) -> str:
    path, pen_down = [], False
    for step, value in zip(x, y, strict=True):
        if math.isnan(value):
            pen_down = False
            continue
        px, py = place.across(step), place.down(value)
        path.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
        pen_down = True
    if not path:
        return ""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="2.2" '
        f'stroke-linejoin="round" stroke-linecap="round"{dashes}/>'
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2" fill="{color}"/>'
    )


def _legend(series: Sequence[Series]) -> tuple[str, int]:
    """The legend, and its number of rows."""
    parts, x, row = [], LEFT, 0
    for index, one in enumerate(series):
        width = 52 + round(len(one.name) * 6.5)
        if x > LEFT and x + width > WIDTH:
            x, row = LEFT, row + 1
        color, dash, y = _color(one, index), DASHES[index % len(DASHES)], 32 + row * LEGEND_ROW
        parts.append(
            f'<line x1="{x}" x2="{x + 24}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="2.4" '
            f'stroke-dasharray="{dash}"/><text x="{x + 30}" y="{y + 4}" fill="{INK}">{escape(one.name)}</text>'
        )
        x += width
    return "".join(parts), row + 1


def _in_words(one: Series, percent: bool) -> str:
    known = [value for value in one.y if value is not None and math.isfinite(value)]
    if not known:
        return f"{one.name}: nothing was logged"
    return f"{one.name}: from {figure(known[0], percent)} to {figure(known[-1], percent)}"


def _color(one: Series, index: int) -> str:
    return one.color or PALETTE[index % len(PALETTE)]
