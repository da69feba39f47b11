import importlib.util
import math
import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

from open_r1.report.svg import ticks

SPEC = importlib.util.spec_from_file_location("example_curves", Path(__file__).parents[2] / "examples/curves.py")
curves = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = curves
SPEC.loader.exec_module(curves)
Series, grid, line_chart = curves.Series, curves.grid, curves.line_chart
MOST_POINTS, WIDTH = curves.MOST_POINTS, curves.WIDTH

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series, **options):
    return line_chart(series, title="Reward", x_label="step", **options).svg


def points(svg):
    path = ET.fromstring(svg).find(f"{SVG}path")
    assert path is not None
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", path.get("d", ""))]


def test_a_rising_series_rises_and_stays_inside_the_picture():
    line = points(chart(Series("zero", range(5), [0.1, 0.2, 0.4, 0.6, 0.9]), percent=True))
    assert line == sorted(line, key=lambda p: (p[0], -p[1]))
    assert all(0 <= x <= 480 and 0 <= y <= 290 for x, y in line)
    assert line[0][1] > line[-1][1]


def test_gaps_long_series_and_degenerate_ones_are_drawn():
    gap = chart(Series("a", range(5), [1, None, float("nan"), 2, 3]))
    assert ET.fromstring(gap).find(f"{SVG}path").get("d").count("M") == 2
    assert "nan" not in gap.lower()
    assert MOST_POINTS / 2 < len(points(chart(Series("a", range(10_000), [1.0] * 10_000)))) <= MOST_POINTS
    for series in ([], [Series("a", [], [])], [Series("a", [1], [None])]):
        assert "nothing was logged" in chart(*series)
    assert len(points(chart(Series("a", [3], [0.0])))) == 1


def test_a_long_series_is_averaged_over_stretches_of_one_length():
    steps = MOST_POINTS + 101
    alternating = points(chart(Series("a", range(steps), [step % 2 for step in range(steps)])))
    assert len({y for _, y in alternating[:-1]}) == 1, "part of the line kept its noise"
    assert len(alternating) == math.ceil(steps / 2), "the last step is drawn too"
    gaps = {round(right - left, 1) for (left, _), (right, _) in pairwise(alternating[:-1])}
    assert max(gaps) - min(gaps) < 0.25


def test_names_cannot_break_out_and_everything_is_said_in_words():
    svg = chart(Series("<script>", [1, 2], [0.1, 0.25]), percent=True)
    ET.fromstring(svg)
    assert "<script>" not in svg
    assert "&lt;script&gt;: from 10% to 25%" in svg


def test_ticks_are_round_and_cover_the_range():
    assert ticks(0, 1, most=6) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 87, most=6) == [0, 20, 40, 60, 80, 100]
    assert ticks(-0.5, 0.5, most=7) == [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]
    assert ticks(1, 40, most=7, whole=True) == [10, 20, 30, 40]
    assert ticks(1, 3, most=7, whole=True) == [1, 2, 3]
    assert ticks(5, 5, most=6)[0] <= 5 <= ticks(5, 5, most=6)[-1]


def test_a_legend_that_does_not_fit_into_one_row_goes_on_in_the_next():
    names = [f"a long name of a series, {i}" for i in range(6)]
    svg = line_chart([Series(name, [0, 1], [0.0, 1.0]) for name in names], title="t", x_label="step").svg
    ends = {name: float(re.search(rf'<text x="(\d+)" y="(\d+)"[^>]*>{name}<', svg)[1]) for name in names}
    assert all(x + 6.5 * len(name) <= WIDTH for name, x in ends.items())
    lowest = max(float(y) for name in names for y in re.findall(rf'y="(\d+)"[^>]*>{name}<', svg))
    assert min(float(y) for y in re.findall(r'<line x1="52"[^>]*y1="([\d.]+)" y2="[\d.]+" stroke="var', svg)) > lowest


def test_a_long_legend_makes_the_picture_higher_and_leaves_the_lines_their_room():
    series = [Series(f"a rather long name of a series, {i:02d}", [0, 1], [0.0, 1.0]) for i in range(40)]
    short, long = chart(series[0]), chart(*series)

    def height(svg):
        (_, top), (_, bottom) = sorted(points(svg), key=lambda point: point[1])
        return bottom - top

    assert height(long) == height(short) > 100
    assert max(y for _, y in points(long)) < int(ET.fromstring(long).get("viewBox").split()[3])
    low, high = (line_chart(some, title="t", x_label="step") for some in (series[:1], series))
    tall, plain = (ET.fromstring(grid(charts, columns=2)) for charts in ([high, low, low], [low] * 3))
    places = [(float(svg.get("y")), float(svg.get("height"))) for svg in tall.findall(f"{SVG}svg")]
    assert places[2][0] >= places[0][0] + places[0][1]
    assert float(tall.get("viewBox").split()[3]) > float(plain.get("viewBox").split()[3])
