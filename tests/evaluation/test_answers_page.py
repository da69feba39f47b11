"""The page for reading answers, as data and in a browser."""

import base64
import json
import re
import shutil
import subprocess
import zlib

import pytest
from evaluation.scripted import Scripted, evaluate_task, opened

from open_r1.evaluation.answers_page import write_report
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.report.evaluation_page import second_thoughts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

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


def in_browser(path, script):
    """Runs `script`, which sets the title when it is done, in the page; returns the title."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())  # it stops these clicks
    end = html.rindex("</body>")
    copy = path.with_name("clicked.html")
    copy.write_text(html[:end] + f"<script>(async () => {{{script}}})()</script>" + html[end:])
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=120)
    return re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]


CLICKS = r"""
const pause = () => new Promise(done => setTimeout(done, 400));
const problems = () => [...document.querySelectorAll(".problem")];
const ids = () => problems().map(p => p.querySelector(".id").textContent).join(" ");
const pick = name => document.querySelector(`input[value=${name}]`).click();
const change = (id, value, event) => {
  const input = document.getElementById(id);
  input.value = value;
  input.dispatchEvent(new Event(event));
};
const seen = {all: ids()};
problems()[0].querySelector("summary").click();
await pause();
problems()[0].querySelector(".sample summary").click();
await pause();
const think = problems()[0].querySelector(".think");
seen.reasoning = [think.open, think.querySelectorAll("mark").length];
seen.answer = problems()[0].querySelector(".text").lastChild.textContent;
pick("right");
seen.right = ids();
pick("cut");
seen.cut = ids();
problems()[0].querySelector("summary").click();
await pause();
seen.unfinished = problems()[0].querySelector(".text").textContent;
pick("all");
change("order", "hard", "change");
seen.hardest = problems()[0].querySelector(".id").textContent;
change("search", "ZEBRA", "input");
await pause();
await pause();
seen.found = ids();
document.title = JSON.stringify(seen);
"""


@pytest.mark.browser
def test_clicking_through_the_page(folder):
    assert json.loads(in_browser(write_report(folder).path, CLICKS)) == {
        "all": "s0 s1 s2 s3 s4 s5",
        "reasoning": [False, 2],
        "answer": r"\boxed{0}",
        "right": "s0 s1 s3 s4 s5",
        "cut": "s2",
        "unfinished": "Reasoning, 23 characters, not finishedThe zebra never ends...No answer was written.",
        "hardest": "s2",
        "found": "s2",
    }
