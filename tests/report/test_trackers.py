"""A tracker that is missing is named with its package."""

import pytest

from open_r1.report import trackers
from open_r1.report.trackers import tracker_problem


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", lambda: ["mlflow"])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tensorboard", "pip install tensorboard"),
        ("wandb", "[tracking]"),
        ("tensorbord", "Did you mean 'tensorboard'?"),
    ],
)
def test_each_names_its_remedy(name, remedy):
    problem = tracker_problem(["mlflow", name])
    assert problem is not None and name in problem and remedy in problem


def test_what_is_there_is_no_problem():
    assert tracker_problem(["mlflow", "none", "all"]) is None
    assert tracker_problem(None) is None
