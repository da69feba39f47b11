"""What all tests share."""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the models are too small for more threads


def pytest_collection_finish() -> None:
    """Every run of the trainer collects garbage: not among what was imported, which takes a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Chromium, for tests that are marked `browser`."""
    from browser import Chromium

    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture
def page(chromium):
    """A tab; the test fails if the page throws, or wants something that its policy forbids."""
    from browser import Page

    page = Page(chromium)
    yield page
    complaints = page.complaints()
    page.close()
    assert complaints == []
