"""The page of a run: what it reads, what it shows, and who may ask its server."""

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from urllib.error import HTTPError

import pytest

from open_r1.errors import UserError
from open_r1.evaluation.answers_page import main as report
from open_r1.report.recorder import RunRecorder
from open_r1.report.run_data import RunPages
from open_r1.report.run_page import live_page, spread, write_run_page
from open_r1.report.serve import PageServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><img src=x onerror=\"document.title='broken'\">\x00 \u202eabc <think>zebra</think>4"
LOGS = {
    **{"loss": 0.1, "reward_std": 0.4, "frac_reward_zero_std": 0.5, "completions/clipped_ratio": 0.0},
    **{"entropy": 0.5, "time/training": 2.0, "epoch": 0.5},
}


def rows(step):
    texts = ["<think>one</think>1", NASTY, "2", "half \ud800"]
    return [
        {
            "prompt": f"What is {p}+1?",
            "gold": "4",
            "completion": texts[i],
            "n_tokens": 5 + i,
            "finish_reason": "stop" if i else "length",
            "reward": float(i == step % 4),
            "advantage": i - 1.5,
            "reward/accuracy": float(i == 1),
        }
        for p in (3, 7)
        for i in range(4)
    ]


@pytest.fixture
def recorder(tmp_path):
    recorder = RunRecorder(tmp_path / "mine", {"num_generations": 4, "max_steps": 10}, is_main=True)
    recorder.start(0)
    for step in range(1, 6):
        recorder.log_rollouts(step, rows(step))
        recorder.log_metrics(step, {**LOGS, "reward": step / 10})
    return recorder


@pytest.fixture
def folder(recorder, tmp_path):
    return tmp_path / "mine"


def test_figures_come_as_they_are_appended_and_anew_after_a_restart(folder, recorder):
    pages = RunPages([folder])
    first = pages.get("figures/0/0/0")
    assert [line["reward"] for line in first["lines"]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert first["steps"] == [1, 2, 3, 4, 5] and first["config"]["max_steps"] == 10
    recorder.log_metrics(6, {**LOGS, "reward": 0.6})
    with (folder / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "rew')
    news = pages.get(f"figures/0/{first['generation']}/5")
    assert (news["from"], [line["step"] for line in news["lines"]]) == (5, [6])
    again = RunRecorder(folder, recorder.config, is_main=True)
    again.start(3)
    news = pages.get(f"figures/0/{news['generation']}/6")
    assert (news["from"], [line["step"] for line in news["lines"]]) == (0, [1, 2, 3])
    assert news["steps"] == [1, 2, 3]


def test_rollouts_come_by_group_and_texts_only_for_the_rows_asked_for(folder):
    pages = RunPages([folder])
    step = pages.get("rollouts/0/2")
    assert [(g["prompt"], g["start"], g["end"]) for g in step["groups"]] == [
        ("What is 3+1?", 0, 4),
        ("What is 7+1?", 4, 8),
    ]
    assert step["reward"] == [0, 0, 1, 0] * 2 and step["rewards"] == {"accuracy": [0, 1, 0, 0] * 2}
    assert "zebra" not in json.dumps(step)
    assert pages.get("texts/0/2/5/7") == [NASTY, "2"]
    assert pages.get("search/0/2", "ZEBRA") == [1, 5]
    problem = pages.get("problems/0")[0]
    assert [(visit["step"], visit["reward"]) for visit in problem["visits"]] == [(step, 0.25) for step in range(1, 6)]


@pytest.mark.parametrize("path", ["rollouts/0/9", "rollouts/1/1", "texts/0/../1", "nothing/0", "rollouts/-1/1", "x"])
def test_paths_that_there_are_none_of(folder, path):
    with pytest.raises((LookupError, ValueError)):
        RunPages([folder]).get(path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="give the output_dir of a training run"):
        RunPages([tmp_path])


def test_the_saved_page_loads_nothing_and_what_a_model_wrote_stays_text(folder, tmp_path):
    saved = write_run_page(folder, tmp_path / "page.html", 200)
    html = saved.path.read_text()
    assert (saved.carried, saved.steps) == (5, 5)
    assert "zebra" not in html and "default-src 'none'" in html and "connect-src" not in html
    assert not re.search(r"(src|href)\s*=\s*[\"']|@import|url\(", html)
    small = write_run_page(folder, tmp_path / "small.html", 0.002)
    assert 0 < small.carried < 5


def test_a_page_of_a_run_that_cannot_be_written_is_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"page\.html cannot be written"):
        report([str(folder), "--output", str(tmp_path / "none" / "page.html")])


def test_the_first_steps_of_a_small_page_are_spread_over_the_run():
    assert list(spread([])) == [] and list(spread([4])) == [4]
    assert list(spread(range(9)))[:5] == [8, 0, 4, 2, 6]
    assert sorted(spread(range(37))) == list(range(37))


@pytest.fixture
def server(folder):
    pages = RunPages([folder])
    with PageServer(live_page(pages), pages.get, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
        return reply.read().decode()


def test_the_server_answers_only_who_knows_its_word_and_only_under_loopback_names(server):
    assert "connect-src 'self'" in fetched(server.url)
    assert json.loads(fetched(server.url + "texts/0/2/1/2")) == [NASTY]
    assert "Open R1" in fetched(server.url, Host="localhost:9999")
    root = f"http://127.0.0.1:{server.server_port}/"
    for url, host in ((root, "localhost"), (root + "guess/", "localhost"), (server.url, "evil.example")):
        with pytest.raises(HTTPError, match="403"):
            fetched(url, Host=host)
    with pytest.raises(HTTPError, match="404"):
        fetched(server.url + "rollouts/0/77")
    with pytest.raises(UserError, match="cannot be used"):
        PageServer("", lambda path, words: None, server.server_port)


CLICKS = r"""
const pause = () => new Promise(done => setTimeout(done, 500));
const pick = value => document.querySelector(`input[value=${value}]`).click();
const seen = {};
await pause();
seen.reward = document.querySelector(".chart svg").getAttribute("aria-label");
seen.head = document.querySelector(".head .line").textContent;
pick("rollouts");
await pause();
seen.step = document.getElementById("step-name").textContent;
document.querySelector("#groups summary").click();
await pause();
seen.best = document.querySelector("#groups .sample").textContent.slice(0, 8);
const nasty = [...document.querySelectorAll("#groups .sample")].find(s => s.textContent.includes("onerror"));
seen.odd = [...nasty.querySelectorAll(".odd")].map(o => o.textContent);
seen.images = document.images.length;
const search = document.getElementById("search");
search.value = "ZEBRA";
search.dispatchEvent(new Event("input"));
await pause();
document.querySelector("#groups summary").click();
await pause();
seen.hits = [document.querySelectorAll("#groups .sample").length, document.querySelectorAll("#groups mark.hit").length];
document.querySelector("#groups button.plain").click();
await pause();
seen.visits = document.querySelectorAll(".visit").length;
pick("options");
seen.option = document.getElementById("options").textContent.includes("max_steps");
document.title = JSON.stringify(seen);
"""


@pytest.mark.browser
def test_clicking_through_the_page(folder, tmp_path):
    html = write_run_page(folder, tmp_path / "page.html", 200).path.read_text()
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)  # or it would stop these clicks
    end = html.rindex("</body>")
    (tmp_path / "clicked.html").write_text(html[:end] + f"<script>(async () => {{{CLICKS}}})()</script>" + html[end:])
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "clicked.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert json.loads(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]) == {
        "reward": "Reward. mine: from 0.1 to 0.5",
        "head": "minenot finishedstep 5 of 1010 s of work",
        "step": "step 5",
        "best": "reward 1",
        "odd": ["U+0000", "U+202E"],
        "images": 0,
        "hits": [1, 1],
        "visits": 5,
        "option": True,
    }


@pytest.mark.browser
def test_the_live_page_runs_under_its_own_policy(server):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
        server.url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Reward. mine: from 0.1 to 0.5" in done.stdout
