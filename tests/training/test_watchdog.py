"""A run that hangs ends, and says where."""

import subprocess
import sys

import pytest
from runs import arguments, launch, make_folder

from open_r1.training.watchdog import EXIT_CODE

HANGS = """
import threading, time
from open_r1.training.watchdog import Watchdog
watchdog = Watchdog(0.2)
def busy():
    while True:
        watchdog.beat("training")
        time.sleep(0.02)
def stuck_somewhere():
    watchdog.beat("generation")
    time.sleep(60)
with watchdog:
    threading.Thread(target=busy, daemon=True).start()
    stuck_somewhere()
"""


def test_the_thread_that_makes_no_progress_is_named_with_its_stack():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_CODE
    assert "error: generation: no progress for 0.2 s (hang_timeout)" in done.stderr
    assert "in stuck_somewhere" in done.stderr


@pytest.mark.parametrize("limit", [0.0, 0.2])
def test_progress_rest_and_the_end_of_the_work_keep_a_run_alive(limit):
    code = f"""
import time
from open_r1.training.watchdog import Watchdog
watchdog = Watchdog({limit})
for _ in range(2):
    with watchdog:
        for _ in range(20):
            watchdog.beat("training")
            time.sleep(0.02)
        watchdog.rest()
        time.sleep(0.5)
        watchdog.beat("training")
    watchdog.beat("uploading")
    time.sleep(0.5)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_reward_that_never_returns_ends_the_run_in_its_phase(tmp_path):
    folder = make_folder(tmp_path)
    options = {"reward_funcs": "odd_rewards:sleeping", "hang_timeout": 3}
    done = launch("grpo", arguments(folder, "grpo", tmp_path / "out", **options), check=False)
    assert done.returncode == EXIT_CODE
    assert "error: scoring: no progress for 3 s" in done.stderr
    assert "in sleeping" in done.stderr
