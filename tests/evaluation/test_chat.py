"""Several turns, in the terminal and for the page."""

import io
import json
import threading
import urllib.request

import pytest
from rich.console import Console

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


def posted(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return [json.loads(line) for line in reply]


@pytest.fixture
def chat(tmp_path):
    args = ChatOptions(web=True, port=0, save=tmp_path / "c.jsonl")
    with chat_server("some/model", args, Model(), threading.Lock()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_page_is_sent_pieces_as_they_come_and_saves_a_row(chat, tmp_path):
    body = {"system": "", "turns": [], "question": "2+2?", "temperature": 0.5, "limit": None}
    pieces = posted(chat.url + "say", body)
    for kind, text in (("reasoning", "hm"), ("content", "4"), ("end", WRITTEN)):
        assert "".join(piece["text"] for piece in pieces if piece["kind"] == kind).strip() == text
    turns = [{"question": "2+2?", "content": "4", "whole": WRITTEN}]
    assert posted(chat.url + "save", {"system": "", "turns": turns})[0]["kind"] == "saved"
    assert json.loads((tmp_path / "c.jsonl").read_text())["messages"][1]["content"] == WRITTEN
    assert posted(chat.url + "say", {"turns": []})[0]["kind"] == "error"
