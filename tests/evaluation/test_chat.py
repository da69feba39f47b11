"""Several turns, in the terminal and for the page."""

import io
import json
import threading
import time
import urllib.request

import pytest
from rich.console import Console
from served import served

from open_r1.errors import UserError
from open_r1.evaluation.ask import split_reasoning
from open_r1.evaluation.chat import ChatOptions, Terminal
from open_r1.evaluation.chat_page import chat_server

WRITTEN = "<think>\nhm\n</think>\n<answer>4</answer>"


class Model:
    """Writes `WRITTEN`; the messages it was sent are kept."""

    def __init__(self, text=WRITTEN, opened=False):
        self.text, self.opened, self.sent = text, opened, []

    def __call__(self, messages):
        self.sent.append(messages)
        return split_reasoning((("content", character) for character in self.text), self.opened)


def talked(model, *lines, **options):
    waiting = iter(lines)

    def read(prompt):
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    file = io.StringIO()
    Terminal(ChatOptions(**options), model, Console(file=file, width=80), read).talk()
    return file.getvalue()


def test_reasoning_is_folded_and_later_turns_are_sent_without_it(tmp_path):
    model = Model()
    out = talked(model, "2+2?", "/think", "a\\", "b", "/save", save=tmp_path / "rows" / "c.jsonl", system_prompt="Add.")
    before, _, after = out.partition("/think shows it")
    assert "hm" not in before and "hm" in after and "<answer>" not in out
    system, first = {"role": "system", "content": "Add."}, {"role": "user", "content": "2+2?"}
    second = {"role": "user", "content": "a\nb"}
    assert model.sent == [[system, first], [system, first, {"role": "assistant", "content": "4"}, second]]
    whole = {"role": "assistant", "content": WRITTEN}
    row = json.loads((tmp_path / "rows" / "c.jsonl").read_text())
    assert row == {"messages": [system, first, whole, second, whole]}


def test_reasoning_that_the_template_opened_is_saved_with_its_tag(tmp_path):
    talked(Model("hm\n</think>\n4", opened=True), "2+2?", "/save", save=tmp_path / "c.jsonl")
    assert json.loads((tmp_path / "c.jsonl").read_text())["messages"][1]["content"] == "<think>\nhm\n</think>\n4"


def test_commands(tmp_path):
    model = Model("4")
    options = {"save": tmp_path / "c.jsonl"}
    out = talked(
        model, "/save", "/temperature hot", "/limit -1", "1+3?", "/again", "/undo", "/system Hm.", "x", **options
    )
    assert "there is no answer yet" in out and "'hot'" in out and "at least 0" in out
    assert [len(messages) for messages in model.sent] == [1, 1, 2]
    assert "/again" in talked(model, "/help", **options)


def test_an_answer_stays_when_another_one_fails(tmp_path):
    model = Model()

    def broken(messages):
        if model.sent:
            raise UserError("the server does not answer")
        return model(messages)

    out = talked(broken, "2+2?", "/again", "/save", save=tmp_path / "c.jsonl")
    assert "does not answer" in out
    assert json.loads((tmp_path / "c.jsonl").read_text())["messages"][1]["content"] == WRITTEN


def posted(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return [json.loads(line) for line in reply]


@pytest.fixture
def chat(tmp_path):
    args = ChatOptions(web=True, port=0, save=tmp_path / "c.jsonl")
    with served() as start:
        yield start(chat_server("some/model", args, Model(), threading.Lock()))


def test_the_page_is_sent_pieces_as_they_come_and_saves_a_row(chat, tmp_path):
    body = {"system": "", "turns": [], "question": "2+2?", "temperature": 0.5, "limit": None}
    pieces = posted(chat.url + "say", body)
    for kind, text in (("reasoning", "hm"), ("content", "4"), ("end", WRITTEN)):
        assert "".join(piece["text"] for piece in pieces if piece["kind"] == kind).strip() == text
    turns = [{"question": "2+2?", "content": "4", "whole": WRITTEN}]
    assert posted(chat.url + "save", {"system": "", "turns": turns})[0]["kind"] == "saved"
    assert json.loads((tmp_path / "c.jsonl").read_text())["messages"][1]["content"] == WRITTEN
    assert posted(chat.url + "say", {"turns": []})[0]["kind"] == "error"


class Slow(Model):
    """Writes in parts: each `|` in the text waits until `go` is set."""

    def __init__(self, text):
        super().__init__(text)
        self.go = threading.Event()

    def __call__(self, messages):
        self.sent.append(messages)
        return split_reasoning(self.pieces())

    def pieces(self):
        for number, part in enumerate(self.text.split("|")):
            if number:
                self.go.wait(30)
                self.go.clear()
            yield "content", part


class Endless(Model):
    """Writes until the reader leaves."""

    left = 0

    def __call__(self, messages):
        self.sent.append(messages)
        try:
            while True:
                time.sleep(0.001)
                yield "content", "word "
        finally:
            self.left += 1


@pytest.fixture
def chat_page(tmp_path, page):
    """Opens the page of a chat with a model."""
    with served() as start:

        def opened(model):
            args = ChatOptions(web=True, port=0, save=tmp_path / "c.jsonl", temperature=0.3)
            page.open(start(chat_server("some/model", args, model, threading.Lock())).url)
            return page

        yield opened


def asked(page, question):
    page.type("#question", question)
    page.press("Enter", "\r")


IDLE = "document.querySelector('#send').innerText === 'Ask'"


@pytest.mark.browser
def test_an_answer_appears_as_it_is_written_and_is_saved(chat_page, tmp_path):
    model = Slow("<think>\nOne| and one.\n</think>\n<answer>Two|, <b>of course</b>.</answer>")
    page = chat_page(model)
    asked(page, "1+1?")
    page.until("document.querySelector('.think summary')?.innerText.startsWith('Thinking, ')")
    model.go.set()
    page.until("document.querySelector('.reply').innerText.endsWith('Two')")
    model.go.set()
    page.until(IDLE)
    assert page.text(".question") == "1+1?" and page.text(".reply > div") == "Two, <b>of course</b>."
    assert page.text(".think summary").startswith("Thought for ")
    page.click(".think summary")
    assert page.text(".think > div") == "One and one."
    page.type("#temperature", "0.9")
    page.click(".settings summary")
    page.type("#system", "Be brief.")
    model.text = model.text.replace("|", "")
    asked(page, "And 2+2?")
    page.until(f"document.querySelectorAll('.reply').length === 2 && {IDLE}")
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}
    answer = {"role": "assistant", "content": "Two, <b>of course</b>."}
    assert model.sent == [[first], [system, first, answer, {"role": "user", "content": "And 2+2?"}]]
    page.click("#save")
    page.until("document.querySelector('#status').innerText.startsWith('saved to')")
    row = json.loads((tmp_path / "c.jsonl").read_text())
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert row["messages"][2]["content"] == model.text


@pytest.mark.browser
def test_an_answer_is_stopped_and_a_new_conversation_begins_empty(chat_page):
    model = Endless()
    page = chat_page(model)
    asked(page, "Go on.")
    page.until("document.querySelector('.reply').innerText.includes('word word')")
    page.click("#send", "Stop")
    page.until(f"document.querySelector('.reply').innerText.endsWith('stopped') && {IDLE}")
    asked(page, "Again.")
    page.until("document.querySelectorAll('.reply')[1]?.innerText.includes('word')")
    assert model.left == 1 and model.sent[1][1]["content"].startswith("word word")
    page.click("#new")
    page.until(IDLE)
    page.click("#save")
    assert page.text("#turns") == "" and page.text("#status") == "There is nothing to save yet."


@pytest.mark.browser
def test_hostile_answers_are_text_and_failures_are_sentences(chat_page):
    hostile = "</script><img src=x onerror=\"document.title='broken'\">\x00\u202eabc"
    page = chat_page(Model(hostile))
    asked(page, hostile[:-5])
    page.until(f"document.querySelector('.reply')?.innerText.endsWith('abc') && {IDLE}")
    assert page.text(".reply").endswith("U+0000U+202Eabc") and page.js("document.images.length") == 0
    assert page.text(".question").startswith("</script><img")
    page.type("#temperature", "-1")
    asked(page, "x")
    page.until(
        "document.querySelector('.problem-line')?.innerText === 'temperature is -1.0: expected 0 (greedy) or more.'"
    )
    page.type("#temperature", "0.5")
    asked(page, "y")
    page.until(f"document.querySelectorAll('.reply').length === 3 && {IDLE}")


def broken(messages):
    yield "content", "one"
    raise RuntimeError("CUDA out of memory")


def test_a_model_that_fails_ends_the_answer_with_a_sentence(tmp_path):
    with served() as start:
        args = ChatOptions(web=True, port=0, save=tmp_path / "c.jsonl")
        server = start(chat_server("some/model", args, broken, threading.Lock()))
        body = {"system": "", "turns": [], "question": "2+2?", "temperature": 0.5, "limit": None}
        kinds = [(piece["kind"], piece["text"]) for piece in posted(server.url + "say", body)]
    assert kinds == [("content", "one"), ("error", "CUDA out of memory"), ("end", "one")]
