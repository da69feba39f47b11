"""The reader of pickled strings: what pickle writes of a string, and nothing else."""

import base64
import os
import pickle
import zlib

import pytest

from open_r1.evaluation.code.pickled import read_pickled_text, unpack_text

TEXTS = ["", "a", "é" * 300, "x" * 70_000, "\ud800"]


class Harm:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_reads_what_pickle_writes(text, protocol):
    assert read_pickled_text(pickle.dumps(text, protocol)) == text


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Harm()),
        pickle.dumps(["a"]),
        pickle.dumps(b"a"),
        pickle.dumps(1),
        pickle.dumps("a", 0),
        pickle.dumps("a")[:-1],
        pickle.dumps("a") + b"x",
        pickle.dumps("a")[:-1] + b"\x8c\x01b.",
        b"",
        b"\x80",
        b"\x80\x04.",
        b"\x80\x04\x8c\xffa.",
    ],
    ids=range(12),
)
def test_refuses_everything_else(data):
    with pytest.raises(ValueError, match="pickle"):
        read_pickled_text(data)


def pack(data):
    return base64.b64encode(data).decode()


def test_unpacks():
    assert unpack_text(pack(zlib.compress(pickle.dumps("[1]")))) == "[1]"


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        ("ä", "base64"),
        ("a b", "base64"),
        (pack(b"no zlib"), "zlib"),
        (pack(zlib.compress(pickle.dumps("abc"))[:-6]), "too early"),
    ],
)
def test_says_what_is_wrong_with_the_packing(packed, says):
    with pytest.raises(ValueError, match=says):
        unpack_text(packed)


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("open_r1.evaluation.code.pickled.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        unpack_text(pack(zlib.compress(pickle.dumps("a" * 2000))))
