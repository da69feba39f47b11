"""The live page of runs, clicked through in a browser while their folders change."""

import shutil
import threading

import pytest
from served import served

from open_r1.report.recorder import RunRecorder
from open_r1.report.run_data import RunPages
from open_r1.report.run_page import live_page, write_run_page
from open_r1.report.serve import PageServer

pytestmark = pytest.mark.browser

SCRIPT = "</script><img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
HOSTILE = {
    "markup": SCRIPT,
    "reordered": "\u202egnorw si rewsna eht\u202c",
    "zeros": "a" + "\x00" * 1000 + "b",
    "long": "x" * 2_000_000 + "needle{p}",
    "half": "half \ud800",
    "thoughts": "<think>zebra <think> again</think>\n<answer>7</answer>",
}


def rows(step, texts):
    return [
        {
            "prompt": f"What is {p}+1? {SCRIPT}",
            "gold": str(p + 1),
            "completion": text.replace("{p}", str(p)),
            "n_tokens": 5 + i,
            "finish_reason": "length" if i == 0 else "stop",
            "reward": float(i + (p == 7)) * step / 10,
            "advantage": i - 1.5,
            "reward/accuracy": float(i == 1),
        }
        for p in (3, 7)
        for i, text in enumerate(texts)
    ]


class Training:
    """A run that goes on when told."""

    def __init__(self, folder, texts=("one", "two"), **config):
        self.folder, self.texts, self.step = folder, texts, 0
        self.recorder = RunRecorder(folder, {"num_generations": len(texts), "max_steps": 10, **config}, is_main=True)
        self.recorder.start(0)

    def go(self, steps=1, **metrics):
        for _ in range(steps):
            self.step += 1
            self.recorder.log_rollouts(self.step, rows(self.step, self.texts))
            figures = {"loss": 0.1, "reward": self.step / 10, "time/training": 2.0, "time/generation": 1.0}
            self.recorder.log_metrics(self.step, figures | metrics)
        return self

    def resume(self, step):
        self.step = step
        self.recorder.start(step)


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path / "mine").go(3)


@pytest.fixture
def watched():
    """Serves the page of folders, and gives its address."""
    with served() as start:

        def watch(*folders):
            pages = RunPages(folders)
            return start(PageServer(live_page(pages), pages.get, 0)).url

        yield watch


def chart(name):
    return f"document.querySelector('[aria-label^=\"{name}.\"]')?.getAttribute('aria-label')"


def test_steps_appear_as_they_are_made_and_vanish_when_a_run_goes_back(training, watched, page):
    page.open(watched(training.folder))
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.3'")
    assert "step 3 of 10" in page.text("#heads") and "21 s left" in page.text("#heads")
    training.go(2)
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.5'")
    page.click("#tabs label", "Rollouts")
    page.until("document.querySelector('#step-name').innerText === 'step 5'")
    training.go()
    page.until("document.querySelector('#step-name').innerText === 'step 6'")
    page.click("#step-before")
    page.until("document.querySelector('#step-name').innerText === 'step 5'")
    training.resume(2)
    training.go(reward=0.9)
    page.until("document.querySelector('#step-name').innerText === 'step 3'")
    page.click("#tabs label", "Overview")
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.9'")


def test_groups_are_sorted_searched_and_read_side_by_side(training, watched, page):
    training.texts = ("one", "<think>Look, a Zebra{p}.</think>two")
    training.go()
    page.open(watched(training.folder))
    page.click("#tabs label", "Rollouts")
    page.until("document.querySelectorAll('#groups details').length === 2")
    assert [rate.split()[0] for rate in page.texts("#groups .rate")] == ["0.6", "0.2"]
    page.choose("#order", "worst")
    page.until("document.querySelector('#groups .rate').innerText.startsWith('0.2')")
    page.click("#groups summary")
    page.until("document.querySelectorAll('#groups .beside > .sample').length === 2")
    assert [text.split("\n")[0] for text in page.texts("#groups .sample .head b")] == ["reward 0.4", "reward 0"]
    assert "Right answer: 4" in page.text("#groups .inside")
    left, right = page.js("[...document.querySelectorAll('#groups .sample')].map(s => s.getBoundingClientRect().top)")
    assert left == right, "the completions of a group stand side by side"
    page.type("#search", "zebra3")
    page.until("document.querySelector('#count').innerText === '1 of 2 groups'")
    page.click("#groups summary")
    page.until("document.querySelector('#groups mark.hit')?.innerText === 'Zebra3'")
    assert page.js("document.querySelector('#groups .think').open")
    page.click("#everywhere")
    page.until("document.querySelector('#hits').innerText === 'step 4: 1'")
    page.type("#search", "one")
    page.until("document.querySelector('#hits').innerText === ''")
    page.click("#everywhere")
    page.click("#hits button", "step 2")
    page.until("document.querySelector('#step-name').innerText === 'step 2'")
    page.type("#search", "nowhere to be found")
    page.until("document.querySelector('#groups').innerText.includes('There are no such groups')")


def test_a_problem_is_followed_over_the_steps(training, watched, page):
    page.open(watched(training.folder))
    page.click("#tabs label", "Rollouts")
    page.click("#groups summary", "What is 7+1?")
    page.click("#groups button", "This problem at other steps")
    page.until("document.querySelectorAll('.visit').length === 3")
    assert page.texts("#problem-list .rate") == ["0.15 → 0.45\nmean reward"]
    assert page.js(chart("Mean reward")) == "Mean reward. Mean reward: from 0.15 to 0.45"
    page.click(".visit button", "step 2")
    page.until("document.querySelectorAll('.visit .sample').length === 2")
    page.type("#problem-search", "3+1")
    page.until("document.querySelector('#problem-count').innerText === '1 of 2 problems'")


def test_several_runs_are_drawn_into_one_chart(training, watched, page, tmp_path):
    other = Training(tmp_path / "other", learning_rate=1e-6).go(5)
    page.open(watched(training.folder, other.folder))
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.3; other: from 0.1 to 0.5'")
    assert page.js("document.querySelectorAll('.chart')[0].querySelectorAll('path').length") == 2
    page.click("#tabs label", "Options")
    page.until("document.querySelector('#options mark').innerText === 'learning_rate'")
    page.click("#tabs label", "Rollouts")
    page.choose("#rollouts select.which", "1")
    page.until("document.querySelector('#step-name').innerText === 'step 5'")


def test_charts_zoom_together(training, watched, page):
    training.go(5)
    page.open(watched(training.folder))
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.8'")
    x, y, width = page.js(
        "(r => [r.x, r.y + 80, r.width])(document.querySelector('.chart svg').getBoundingClientRect())"
    )
    for kind, at in (("mousePressed", 0.5), ("mouseMoved", 0.8), ("mouseReleased", 0.99)):
        page.call("Input.dispatchMouseEvent", type=kind, x=x + at * width, y=y, button="left", clickCount=1)
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.5 to 0.8'")
    assert page.js(chart("Loss")) == "Loss. mine: from 0.1 to 0.1"
    page.click("#whole")
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.8'")


def test_an_sft_run_has_no_rollouts_to_show(tmp_path, watched, page):
    recorder = RunRecorder(tmp_path / "sft", {"num_train_epochs": 2}, is_main=True)
    recorder.start(0)
    for step in range(1, 5):
        recorder.log_metrics(step, {"loss": 1 / step, "epoch": step / 4, "tokens_per_second": 100.0})
    page.open(watched(tmp_path / "sft"))
    page.until(f"{chart('Loss')} === 'Loss. sft: from 1 to 0.25'")
    assert "step 4 of 8" in page.text("#heads")
    assert page.texts("#tabs label") == ["Overview", "Benchmarks", "Options"]


@pytest.mark.parametrize("saved", [False, True])
def test_whatever_a_model_wrote_is_text(tmp_path, watched, page, saved):
    training = Training(tmp_path / f"run {SCRIPT.replace('/', '')}", tuple(HOSTILE.values()), model_name_or_path=SCRIPT)
    training.go()
    page.open(write_run_page(training.folder, tmp_path / "saved.html", 50).path if saved else watched(training.folder))
    title = page.js("document.title")
    page.click("#tabs label", "Rollouts")
    page.click("#groups summary")
    page.until(f"document.querySelectorAll('#groups .sample').length === {len(HOSTILE)}")
    texts = dict(zip(reversed(HOSTILE), page.texts("#groups .sample .text"), strict=True))
    assert texts["markup"] == SCRIPT
    assert texts["reordered"] == "U+202Egnorw si rewsna ehtU+202C"
    assert texts["zeros"] == "aU+0000 × 1,000b"
    assert texts["half"] == "half ?"
    assert len(texts["long"]) < 30_000 and "Show more (1,980,007 characters left)" in texts["long"]
    assert texts["thoughts"].endswith("7")
    page.type("#search", "needle7")
    page.until("document.querySelector('#count').innerText === '1 of 2 groups'")
    page.click("#groups summary")
    page.until("document.querySelector('#groups mark.hit')?.innerText === 'needle7'")
    page.click("#tabs label", "Problems")
    page.click("#problem-list summary")
    page.click("#tabs label", "Options")
    page.until("document.querySelector('#options').innerText.includes('onerror')")
    assert page.js("document.images.length") == 0 and page.js("document.title") == title
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing makes the page scroll sideways"


def test_files_that_cannot_be_read_are_a_sentence(training, watched, page):
    half = training.folder / "run/rollouts/step-000003.parquet"
    half.write_bytes(half.read_bytes()[:500])
    with (training.folder / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "reward": NaN, "loss": 0.2}\n{"step": 5, "rew')
    page.open(watched(training.folder))
    page.until(f"{chart('Loss')} === 'Loss. mine: from 0.1 to 0.2'")
    page.click("#tabs label", "Rollouts")
    page.until("document.querySelector('#groups').innerText.includes('step-000003.parquet cannot be read')")
    page.click("#step-before")
    page.until("document.querySelectorAll('#groups .problem').length === 2")
    page.click("#tabs label", "Problems")
    page.until("document.querySelector('#problem-list .id').innerText === 'seen at 2 steps'")
    page.chromium.events.clear()  # that the server answered 404


def test_a_folder_that_goes_away_while_it_is_watched(training, watched, page):
    page.open(watched(training.folder))
    page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.3'")
    page.click("#tabs label", "Rollouts")
    page.until("document.querySelectorAll('#groups .problem').length === 2")
    shutil.rmtree(training.folder)
    page.until("document.querySelector('#heads').innerText.includes('its folder is gone')")
    page.click("#groups summary")
    page.until("document.querySelector('#groups').innerText.includes('There are no rollouts of step 3.')")
    page.click("#tabs label", "Problems")
    page.until("document.querySelector('#problem-list').innerText === 'No rollouts yet.'")
    page.chromium.events.clear()  # that the server answered 404


def test_a_server_that_ended_is_a_sentence(training, page):
    pages = RunPages([training.folder])
    with PageServer(live_page(pages), pages.get, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        page.open(server.url.rstrip("/"))
        page.until(f"{chart('Reward')} === 'Reward. mine: from 0.1 to 0.3'")
        server.shutdown()
        thread.join()
    page.until("document.querySelector('#connection').innerText.startsWith('The server does not answer.')")
    page.chromium.events.clear()  # that the connection was refused
