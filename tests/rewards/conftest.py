"""What the tests of programs share."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder():
    """Other users may look into it, which another session of pytest takes back for `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
