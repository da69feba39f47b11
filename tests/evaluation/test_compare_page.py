"""The page of `open-r1 compare --html`, in a browser."""

import pytest
from evaluation.scripted import Scripted, evaluate_task, opened

from open_r1.evaluation.compare import main as compare
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.tasks import find_task, load_problems

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">\x00\u202eabc"


@pytest.fixture
def folders(sums, tmp_path):
    task = find_task(str(sums))
    a = {i: [rf"\boxed{{{2 * i}}}", "\\boxed{77}"] for i in range(6)}
    b = {**a, 2: ["<think>\nhm\n</think>\n\\boxed{4}", "\\boxed{4}"], 4: [HOSTILE + "x" * 2_000_000, HOSTILE]}
    for name, texts in (("before", a), ("after", b)):
        out = tmp_path / name / "evaluation" / "sums"
        protocol = protocol_for(task, num_samples=2)
        evaluate_task(task, load_problems(task), "some/model", opened(Scripted(texts)), protocol, out)
    return tmp_path / "before" / "evaluation", tmp_path / "after" / "evaluation"


@pytest.mark.browser
def test_answers_stand_side_by_side_where_they_differ_first(folders, tmp_path, page):
    a, b = folders
    compare([str(a), str(b), "--html", str(tmp_path / "page.html")])
    page.open(tmp_path / "page.html")
    assert page.text("h1") == "before vs. after"
    assert page.texts("tbody td")[0].startswith("+0.0 (") and page.texts("tbody td")[1:3] == ["50.0%", "50.0%"]
    assert page.texts(".problem .id")[:2] == ["s2", "s4"]
    assert [rate.split("\n")[0] for rate in page.texts(".problem .rate")][:3] == ["50% → 100%", "50% → 0%", "50% → 50%"]
    page.click("#filters label", "Better in A")
    assert page.texts(".problem .id") == ["s4"]
    page.click(".problem summary")
    page.until("document.querySelectorAll('.sample').length === 4")
    assert page.texts(".sample .verdict") == ["✓ right", "✗ wrong", "✗ wrong", "✗ wrong"]
    left, right = page.js(
        "[...document.querySelectorAll('.sample')].map(s => s.getBoundingClientRect().top).slice(0, 2)"
    )
    assert left == right
    assert page.texts(".sample .text")[3] == HOSTILE.replace("\x00", "U+0000").replace("\u202e", "U+202E")
    assert "characters left)" in page.texts(".sample .text")[1]
    assert page.js("document.images.length") == 0 and page.js("document.title") == "before vs. after"
    page.look(390)
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    page.click("#filters label", "All")
    page.type("#search", "2 + 2")
    page.until("document.querySelector('#count').innerText === '1 of 6 problems'")
