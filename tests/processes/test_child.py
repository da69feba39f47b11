import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from open_r1.processes.child import ChildProcess, describe_exit

LEAVES_ORPHANS = """
import os, subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
print("pids", os.getpid(), child.pid, flush=True)
{then}
"""


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def wait_until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def pids_of(lines) -> list[int]:
    return next(([int(w) for w in line.split()[1:]] for line in list(lines) if line.startswith("pids")), [])


def gone(pids) -> bool:
    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != "zombie" for p in pids)


def test_output_is_passed_on_and_the_status_is_the_commands(capfd):
    with ChildProcess("a part", python("print('one'); print('two'); raise SystemExit(7)")) as part:
        assert part.wait(20) == 7
        failure = part.failure("here")
    assert capfd.readouterr().out == "one\ntwo\n"
    assert (failure.exit_code, failure.last_lines, failure.reason) == (7, ("one", "two"), "ended with exit code 7")


def test_output_of_a_quiet_part_goes_to_its_log(tmp_path, capfd):
    with ChildProcess("server", python("print('ready')"), log=tmp_path / "server.log") as part:
        part.wait(20)
    assert (tmp_path / "server.log").read_text() == "ready\n"
    assert capfd.readouterr().out == ""


def test_a_signal_is_a_status_as_in_shells():
    with ChildProcess("killed", python("import os; os.kill(os.getpid(), 9)")) as part:
        assert part.wait(20) == 137
    assert describe_exit(137) == "exit code 137 (SIGKILL)"
    assert describe_exit(-9) == "exit code -9 (SIGKILL)"
    assert describe_exit(3) == "exit code 3"


def test_a_command_that_is_not_there_is_said():
    with ChildProcess("server", ["no-such-program", "--port", "1"]) as part:
        assert part.wait(20) == 127
    assert part.failure("here").last_lines == ("no-such-program: No such file or directory",)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
@pytest.mark.parametrize("then", ["time.sleep(99)", "time.sleep(1); sys.exit(0)"], ids=["stopped", "by itself"])
def test_what_a_part_has_started_ends_with_it(then):
    part = ChildProcess("leaves orphans", python(LEAVES_ORPHANS.format(then=then)), grace=0.3)
    pids = wait_until(lambda: pids_of(part.lines))
    part.stop() if "exit" not in then else part.wait(20)
    assert part.poll() is not None
    assert gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_nothing_is_left_when_the_launcher_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\nfrom open_r1.processes.child import ChildProcess\n"
        f"code = {LEAVES_ORPHANS.format(then='time.sleep(99)')!r}\n"
        "ChildProcess('p', [sys.executable, '-c', code], grace=0.3)\ntime.sleep(99)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    pids = pids_of([parent.stdout.readline()])
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: gone(pids), 30)


def test_signals_reach_the_workers_and_not_their_agent():
    worker = (
        "import signal, sys, time; signal.signal(10, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(99)"
    )
    agent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {worker!r}]).returncode)"
    with ChildProcess("training", python(agent)) as part:
        wait_until(lambda: "up" in part.lines)
        part.signal_workers(signal.SIGUSR1)
        assert part.wait(20) == 75
