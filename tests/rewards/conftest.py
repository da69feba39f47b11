"""What the tests of programs share."""

import tempfile
from pathlib import Path

import pytest

from open_r1.rewards.code.programs import LANGUAGES


@pytest.fixture
def folder():
    """Other users may look into it, which another session of pytest takes back for `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def languages():
    """What a test declares is forgotten after it."""
    known = dict(LANGUAGES)
    yield
    LANGUAGES.clear()
    LANGUAGES.update(known)
