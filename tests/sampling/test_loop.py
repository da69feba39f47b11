"""Saving and grading beside the engine."""

import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from open_r1.engine.protocol import Completion
from open_r1.errors import UserError
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict
from open_r1.sampling.loop import SampleWriter
from open_r1.sampling.requests import SampleRequest

PATIENCE = 30


class Store:
    """Keeps rows in memory; `when_saved` runs within each `append`."""

    def __init__(self, when_saved=lambda: None):
        self.rows, self.batches, self.when_saved = {}, [], when_saved

    def __contains__(self, key):
        return key in self.rows

    def append(self, rows, seconds):
        self.rows |= {(row["index"], row["sample"]): row for row in rows}
        self.batches.append(len(rows))
        self.when_saved()

    def saved(self):
        return ""


def request(index):
    return SampleRequest(SimpleNamespace(index=index), 0, 1, [1], 1, 8, index)


def right(answers):
    return [Verdict(True, text, "compared") for _, text in answers]


def writer(store, judge=right, **options):
    return SampleWriter(store, judge, SamplingProgress("t", 10, 0, 0, Console(quiet=True)), **options)


def add(writing, indices):
    for index in indices:
        writing.add(request(index), [Completion(str(index), [1], None, "stop", 0)])


def test_samples_are_saved_while_the_grader_is_busy():
    all_saved, waited = threading.Event(), []
    store = Store(lambda: len(store.rows) == 200 and all_saved.set())

    def judge(answers):
        waited.append(all_saved.wait(PATIENCE))
        return right(answers)

    with writer(store, judge) as writing:
        add(writing, range(200))
    assert all(waited)
    assert [row["extracted"] for row in store.rows.values()] == [str(i) for i in range(200)]


def test_a_slow_disk_saves_together_what_has_finished_meanwhile():
    all_added = threading.Event()
    store = Store(lambda: all_added.wait(PATIENCE))
    with writer(store) as writing:
        add(writing, [0])
        while not store.batches:  # the first one is being saved
            pass
        add(writing, range(1, 500))
        all_added.set()
    assert store.batches == [1, 499]


def test_room_is_made_when_all_that_is_saved_has_a_verdict():
    store, emptied = Store(), []

    def make_room():
        assert all("reason" in row for row in store.rows.values())
        emptied.append(len(store.rows))
        store.rows.clear()

    with writer(store, room=lambda: 7 - len(store.rows), make_room=make_room) as writing:
        add(writing, range(30))
    assert emptied == [7] * 4
    assert len(store.rows) == 2


def test_a_grader_that_fails_ends_the_run_and_makes_no_room():
    def judge(answers):
        raise UserError("no grader")

    def make_room():
        raise AssertionError("rows without a verdict")

    store = Store()
    with (
        pytest.raises(UserError, match="no grader"),
        writer(store, judge, room=lambda: 2 - len(store.rows), make_room=make_room) as writing,
    ):
        add(writing, range(2))
    assert len(store.rows) == 2
