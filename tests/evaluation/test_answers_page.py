"""The page for reading answers, as data and in a browser."""

import base64
import json
import re
import zlib

import pytest
from evaluation.scripted import Scripted, evaluate_task, opened

from open_r1.evaluation.answers_page import write_report
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.report.evaluation_page import second_thoughts

TEXTS = {
    0: ["<think>\nOne. Wait, let me check that.\n</think>\n\\boxed{0}", "\\boxed{3}"],
    1: ["</script><script>document.title='broken'</script> \\boxed{2}", "\\boxed{2}"],
    2: ["<think>\nThe zebra never ends...", "none"],
    3: ["\\boxed{6}", "\\boxed{6}"],
    4: ["\\boxed{8}", "\\boxed{8}"],
    5: ["\\boxed{10}", "\\boxed{1}"],
}


@pytest.fixture
def folder(sums, tmp_path):
    task = find_task(str(sums))
    protocol = protocol_for(task, num_samples=2)
    evaluate_task(task, load_problems(task), "some/model", opened(Scripted(TEXTS)), protocol, tmp_path / "out" / "sums")
    return tmp_path / "out"


def test_the_page_holds_every_text_and_verdict_and_loads_nothing(folder):
    page = write_report(folder)
    html = page.path.read_text()
    assert page.path == folder / "report.html"
    assert not re.search(r"(src|href)\s*=|@import|https?://", html)
    assert "document.title='broken'" not in html
    pieces = re.findall(r'<script type="text/plain" id="piece-0-(\d)">([^<]*)</script>', html)
    assert {int(p): json.loads(zlib.decompress(base64.b64decode(text))) for p, text in pieces} == TEXTS
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    samples = data["tasks"][0]["problems"][0]["samples"]
    assert [s[0] for s in samples] == ["right", "wrong"]
    assert samples[0][4] == 2


def test_a_small_page_carries_fewer_texts_and_says_so(folder):
    page = write_report(folder, max_megabytes=0.0001)
    assert page.carried == 1
    assert "first 1 samples" in page.path.read_text()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, no. Let me double-check.", 2),
        ("The waiter brought 3 plates.", 0),
        ("Hmm, that's not right.", 2),
        ("so x = 3", 0),
    ],
)
def test_second_thoughts(text, count):
    assert second_thoughts(text) == count


@pytest.mark.browser
def test_clicking_through_the_page(folder, page):
    page.open(write_report(folder).path)
    assert page.texts(".problem .id") == ["s0", "s1", "s2", "s3", "s4", "s5"]
    page.click(".problem summary")
    page.click(".problem .sample summary")
    page.until("document.querySelector('.text')")
    assert page.text(".text").split("\n") == ["Reasoning, 29 characters", r"\boxed{0}"]
    page.click(".think summary")
    assert page.texts(".think mark") == ["Wait", "let me check"]
    page.click("#filters label", "Right")
    assert page.texts(".problem .id") == ["s0", "s1", "s3", "s4", "s5"]
    page.click("#filters label", "Cut off")
    assert page.texts(".problem .id") == ["s2"]
    page.click(".problem summary")
    page.until("document.querySelector('.text')")
    assert "There is no answer." in page.text(".text") and "not finished" in page.text(".think")
    page.click("#filters label", "All")
    page.choose("#order", "hard")
    assert page.texts(".problem .id")[0] == "s2"
    page.choose("#order", "given")
    page.type("#search", "ZEBRA")
    page.until("document.querySelectorAll('.problem').length === 1")
    page.type("#search", "document.title")
    page.until("document.querySelector('.id').innerText === 's1'")
    page.click(".problem summary")
    page.click(".problem .sample summary")
    page.until("document.querySelector('.text mark.hit')?.innerText === 'document.title'")
    assert page.js("document.title") == "Answers from model"
