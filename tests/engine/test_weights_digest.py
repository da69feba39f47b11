"""The identity of weights covers every byte, and hashing is not repeated for files that stayed the same."""

import json
import os
from pathlib import Path

import pytest

from open_r1.engine import weights_digest as module
from open_r1.engine.weights_digest import weights_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(folder: Path, middle: bytes = b"\0", name: str = "model.safetensors") -> Path:
    """A weight file of 4 MiB with one byte in the middle of its own, written an hour ago."""
    folder.mkdir(exist_ok=True)
    half = b"x" * (2 << 20)
    (folder / name).write_bytes(half + middle + half)
    an_hour_ago = (folder / name).stat().st_mtime - 3600
    os.utime(folder / name, (an_hour_ago, an_hour_ago))
    return folder


def test_a_byte_in_the_middle_makes_another_model(tmp_path):
    assert weights_digest(str(weights(tmp_path / "a"))) != weights_digest(str(weights(tmp_path / "b", b"\1")))
    assert weights_digest(str(tmp_path / "a")) == weights_digest(str(weights(tmp_path / "c")))


def test_weights_changed_in_place_are_noticed(tmp_path):
    folder = str(weights(tmp_path / "a"))
    before = weights_digest(folder)
    weights(tmp_path / "a", b"\1")
    assert weights_digest(folder) != before


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    folder = str(weights(tmp_path / "a"))
    first = weights_digest(folder)
    monkeypatch.setattr(module, "_hash", lambda path: pytest.fail(f"{path} was hashed again"))
    assert weights_digest(folder) == first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, cache):
    folder = weights(tmp_path / "a")
    os.utime(folder / "model.safetensors")
    weights_digest(str(folder))
    assert not list(cache.rglob("*"))


def test_a_damaged_or_unwritable_cache_does_not_matter(tmp_path, cache, monkeypatch):
    folder = str(weights(tmp_path / "a"))
    first = weights_digest(folder)
    for entry in (cache / "open_r1/weights").iterdir():
        entry.write_text("{")
    assert weights_digest(folder) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a/model.safetensors"))
    assert weights_digest(folder) == first


def test_adapters_include_their_base(tmp_path):
    base = weights(tmp_path / "base")
    adapters = weights(tmp_path / "lora", name="adapter_model.safetensors")
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 8}))
    before = weights_digest(str(adapters))
    weights(base, b"\1")
    assert weights_digest(str(adapters)) != before


def test_a_hub_id_is_its_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    found = str(tmp_path / f"models--org--name/snapshots/{commit}/config.json")
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda model, file, revision: found)
    assert weights_digest("org/name") == commit


def test_nothing_known_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    assert weights_digest(str(tmp_path / "empty")) is None
    assert weights_digest("org/a-model-that-nobody-has") is None
    assert weights_digest("not a hub id at all") is None
