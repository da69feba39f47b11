from xml.etree import ElementTree

from open_r1.report.histogram import histogram


def test_bars_hold_every_value_and_marks_are_labelled():
    picture = histogram([0, 5, 5, 90, 12_000], title="Tokens <b>", x_label="tokens", marks={"p50": 5.4})
    svg = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    bars = [bar.find(f"{name}title").text for bar in svg.iter(f"{name}rect")]
    assert [int(text.rpartition(": ")[2]) for text in bars] == [4, 1]
    assert "p50 5" in [text.text for text in svg.iter(f"{name}text")]


def test_values_that_are_all_nothing_are_drawn():
    assert "<svg" in histogram([0, 0], title="a", x_label="b")
