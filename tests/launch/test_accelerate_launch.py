"""Which process of several is said to have ended a run."""

from types import SimpleNamespace

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from open_r1.launch import accelerate_launch


@pytest.mark.parametrize(
    ("exit_codes", "status", "said"),
    [
        ({0: 76, 1: -9}, 137, "training process 1 ended with exit code 137 (SIGKILL)."),
        ({0: -6, 1: 76, 2: 76}, 134, "training process 0 ended with exit code 134 (SIGABRT)."),
        ({0: 76, 1: 76}, 76, "training process 0 ended with exit code 76."),
        ({0: 2, 1: 2}, 2, "training process 0 ended with exit code 2."),
    ],
)
def test_a_process_that_only_lost_another_is_not_the_reason(exit_codes, status, said, monkeypatch, capsys):
    failures = {rank: SimpleNamespace(exitcode=code, timestamp=1) for rank, code in exit_codes.items()}

    def fail(args):
        error = ChildFailedError.__new__(ChildFailedError)
        error.failures = failures
        raise error

    monkeypatch.setattr("accelerate.commands.launch.launch_command", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "")
    assert accelerate_launch.main(["script.py"]) == status
    assert capsys.readouterr().err == f"{said}\n"
