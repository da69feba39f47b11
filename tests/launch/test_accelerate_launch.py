"""Which process of several is said to have ended a run."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from open_r1.launch import accelerate_launch


@pytest.mark.parametrize(
    ("exit_codes", "status", "said"),
    [
        ({0: 76, 1: -9}, 137, "training process 1 ended with exit code 137 (SIGKILL)."),
        ({0: -6, 1: 76, 2: 76}, 134, "training process 0 ended with exit code 134 (SIGABRT)."),
        ({0: -6, 1: -9}, 137, "training process 1 ended with exit code 137 (SIGKILL)."),
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
    monkeypatch.setattr(accelerate_launch, "hurry_after_failure", lambda *_, **__: None)
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "")
    assert accelerate_launch.main(["script.py"]) == status
    assert capsys.readouterr().err == f"{said}\n"


LAUNCH = """
import sys
from open_r1.launch import accelerate_launch

accelerate_launch.SURVIVOR_SECONDS = 1
sys.exit(accelerate_launch.main(sys.argv[1:]))
"""
DEAF = """
import os, pathlib, signal, sys, time
folder, rank, status, seconds = pathlib.Path(sys.argv[1]), os.environ["RANK"], *map(int, sys.argv[2:])
signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").touch())
(folder / f"started {rank}").write_text(str(os.getpid()))
while len(list(folder.glob("started *"))) < 2:
    time.sleep(0.05)
if rank == "1":
    sys.exit(status)
while not (folder / "asked").exists():
    time.sleep(0.05)
time.sleep(seconds)
(folder / "ended by itself").touch()
"""
"""Process 1 ends with `status`; process 0 needs `seconds` after the SIGTERM that follows, less than the 30 of torch."""


@pytest.mark.parametrize(("status", "seconds", "killed"), [(3, 20, True), (75, 4, False)])
def test_a_process_that_no_signal_reaches_does_not_keep_a_failed_run_alive(tmp_path, status, seconds, killed):
    """Over NCCL, a process waits on the GPU for one that has failed. One that stops on request gives others time."""
    script = tmp_path / "deaf.py"
    script.write_text(DEAF)
    config = Path(__file__).parents[2] / "recipes/accelerate_configs/ddp.yaml"
    words = ["--config_file", config, "--num_processes", "2", "--main_process_port", "0", "--mixed_precision", "no"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH, *words, script, tmp_path, str(status), str(seconds)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        alive = kill(int((tmp_path / "started 0").read_text()))
    assert done.returncode == status, done.stderr
    assert f"training process 1 ended with exit code {status}" in done.stderr
    assert not alive
    assert (tmp_path / "asked").exists()
    assert (tmp_path / "ended by itself").exists() == (not killed)


def kill(pid):
    """Kills a process. False if there is none."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
