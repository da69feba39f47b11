"""The evaluation of code starts no program in its own process."""

import pytest

from open_r1.rewards.code import local


@pytest.fixture(autouse=True)
def no_sandboxes_here(monkeypatch):
    monkeypatch.setattr(local, "Sandbox", None)
