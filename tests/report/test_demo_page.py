import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_demo import write_fake_demo

from open_r1.errors import UserError
from open_r1.report import demo_page
from open_r1.report.demo_page import Result, findings, write_demo_report
from open_r1.report.figures import duration
from open_r1.report.recorder import read_metrics

NASTY = '</script><script>alert(1)</script><!-- & "quotes" \u2028 <think>'


@pytest.fixture
def demo(tmp_path):
    return write_fake_demo(tmp_path)


def embedded(page):
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def rewrite_samples(folder, stage, change):
    path = folder / stage / "evaluation/sums/samples.parquet"
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_the_page_shows_every_stage_and_every_output(demo):
    path = write_demo_report(demo)
    page = path.read_text()
    assert path == demo / "report.html"
    results = json.loads((demo / "results.json").read_text())
    for stage in results["stages"]:
        assert f"<b>{stage['accuracy']:.1%}</b>" in page
    data = embedded(page)
    assert [stage["name"] for stage in data["stages"]] == ["base", "distil", "zero", "multi_stage"]
    rows = pq.read_table(demo / "zero/evaluation/sums/samples.parquet").to_pylist()
    assert [p["outputs"][2]["text"] for p in data["problems"]] == [row["completion"] for row in rows]
    assert [p["outputs"][2]["right"] for p in data["problems"]] == [row["correct"] for row in rows]
    reward, right, _, loss = data["curves"]["grpo"] + data["curves"]["sft"]
    logged = [line["reward"] for line in read_metrics(demo / "zero/run")]
    assert reward["series"][0]["y"] == logged and right["level"]["y"] == results["stages"][0]["accuracy"]
    assert [len(series["x"]) for series in loss["series"]] == [8, 0]


def test_the_page_loads_nothing(demo):
    links = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            links.extend(value for name, value in attrs if name in ("src", "href", "action"))

    page = write_demo_report(demo).read_text()
    Links().feed(page)
    assert links == []
    assert "default-src 'none'" in page and "@import" not in page and "url(" not in page


def test_whatever_a_model_wrote_stays_text(demo):
    def spoil(rows):
        rows[0]["completion"] = NASTY

    rewrite_samples(demo, "zero", spoil)
    page = write_demo_report(demo).read_text()
    assert NASTY not in page and "alert(1)</script>" not in page
    assert len(re.findall(r"<script\b", page)) == 2
    assert embedded(page)["problems"][0]["outputs"][2]["text"] == NASTY


def test_a_long_run_still_makes_a_small_page(demo, monkeypatch):
    monkeypatch.setattr(demo_page, "MOST_TEXT", 2000)
    page = write_demo_report(demo).read_text()
    assert 0 < len(embedded(page)["problems"]) < 24
    assert "of 24 problems" in page


def test_unfinished_or_mixed_up_folders_are_named(demo, tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        write_demo_report(tmp_path / "nowhere")
    rewrite_samples(demo, "zero", lambda rows: rows.reverse())
    with pytest.raises(UserError, match="other problems"):
        write_demo_report(demo)
    (demo / "zero/evaluation/sums/samples.parquet").unlink()
    with pytest.raises(UserError, match=r"zero.*samples\.parquet does not exist"):
        write_demo_report(demo)


def test_findings_claim_no_more_than_the_intervals_allow():
    def result(name, accuracy, tokens):
        return Result(name, accuracy, accuracy - 0.04, accuracy + 0.04, 512, tokens, 1.0)

    base = result("base", 0.38, 30)
    said = [
        sentence
        for _, sentence in findings(
            [base, result("distil", 0.40, 30), result("zero", 0.91, 66), result("multi_stage", 0.2, 15)]
        )
    ]
    assert said[0] == (
        "40% right, which is not distinguishable from the base's 38% with 512 problems, with answers as long as before"
    )
    assert said[1] == "91% right, 53 points above the base, with answers 2.2 times as long"
    assert "18 points below the base" in said[2] and "shorter (15 tokens instead of 30)" in said[2]


def test_durations():
    assert [duration(48.2), duration(312)] == ["48 s", "5 min 12 s"]


@pytest.mark.browser
def test_clicking_through_the_page(demo, page):
    rewrite_samples(demo, "zero", lambda rows: rows[0].update(completion=NASTY))
    page.open(write_demo_report(demo))
    titles = ["Reward", "Right answers on training problems", "Length of an answer, in tokens", "Loss of fine-tuning"]
    assert page.texts(".chart h3") == titles
    assert "R1-Zero: from 38" in page.js("document.querySelectorAll('.chart svg')[1].getAttribute('aria-label')")
    assert page.js("document.querySelectorAll('.chart svg path').length") == 7
    assert len(page.texts(".problem")) == 8 and len(page.texts(".problem .sample")) == 32
    shown = page.texts(".problem .sample .text")[2]
    assert shown.startswith('</script><script>alert(1)</script><!-- & "quotes"')
    page.click(".pager button", "Next")
    page.until("document.querySelector('.pager .count').innerText === 'page 2 of 3'")
    page.click("#filters label", "Wrong everywhere")
    hits = int(page.text("#count").split()[0])
    assert all(text.startswith("✗") for text in page.texts(".problem .verdict"))
    assert len(page.texts(".problem")) == min(hits, 8)
    page.click("#filters label", "All")
    page.type("#search", "alert(1)")
    page.until("document.querySelectorAll('.problem').length === 1")
