"""A hub that does not answer is asked once, and costs seconds and one sentence."""

import os
import socket

import datasets
import pytest
from huggingface_hub import constants
from toys import make_tokenizer

from open_r1 import hub
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.load import load_split
from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.errors import UserError
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.report.hub import create_dataset_repo

REMEDY = r"does not answer.*local folder.*HF_ENDPOINT.*HF_HUB_OFFLINE.*docs/offline\.md"


@pytest.fixture
def listener(tmp_path, monkeypatch):
    """A socket that lets nobody in as the hub; counts are read with `accept`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        for name in ("HF_HUB_OFFLINE", hub._MARK):
            monkeypatch.setenv(name, "")
        hub._try.cache_clear()
        yield server
    hub._try.cache_clear()


def attempts(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def read_all():
    """Every way in which commands read from the hub, or write to it."""
    task = find_task("math_500")
    return [
        lambda: prepare_tokenizer("org/none"),
        lambda: load_split("org/none"),
        lambda: load_problems(task),
        lambda: open_engine(EngineOptions("org/none", engine="transformers")),
        lambda: create_dataset_repo("org/none", private=True),
    ]


def test_a_hub_that_never_answers_is_asked_once(listener):
    for read in read_all():
        with pytest.raises(UserError, match=REMEDY):
            read()
    assert attempts(listener) == 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # for processes that are started from here


def test_a_hub_that_refuses_gives_the_same_sentence(listener):
    listener.close()
    for read in read_all():
        with pytest.raises(UserError, match=REMEDY) as raised:
            read()
        assert len(str(raised.value).splitlines()) == 1


def test_offline_mode_asks_nothing(listener, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set: give a local folder"):
        prepare_tokenizer("org/none")
    assert attempts(listener) == 0


def test_local_folders_ask_nothing(listener, tmp_path):
    prepare_tokenizer(str(make_tokenizer(tmp_path / "tokenizer")))
    with pytest.raises(ZeroDivisionError), hub.reading_hub(str(tmp_path), "model"):
        raise ZeroDivisionError
    assert attempts(listener) == 0
