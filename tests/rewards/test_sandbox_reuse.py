"""A sandbox that runs one program after another: lines of the table in docs/rewards.md."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sandboxes import every, isolated, only

from open_r1.rewards.code import inside
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.sandbox import Sandbox


@only("bubblewrap")
def test_a_sandbox_outlives_the_thread_that_started_it(folder, isolation):
    with Sandbox(folder, isolation) as sandbox:
        thread = threading.Thread(target=sandbox.start)
        thread.start()
        thread.join()
        with pytest.raises(subprocess.TimeoutExpired):
            sandbox._process.wait(0.5)


@isolated
def test_runs_in_one_sandbox_leave_each_other_nothing(folder, isolation):
    (folder / "main.py").write_text(
        "import os, time\n"
        "def names(path):\n    try: return os.listdir(path)\n    except OSError: return []\n"
        "print(names('.'), names('/dev/shm'), names('/proc'))\n"
        "os.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.chmod('a', 0)\nos.symlink('/usr', 'usr')\n"
        "try: open('/dev/shm/left', 'w').write('x')\nexcept PermissionError: pass\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(0.2)\n    open('late', 'w').write('x')\n"
    )
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        outputs = [sandbox.run(command, forked=forked).stdout for forked in (True, True, False, True)]
    assert outputs == ["[] [] []\n"] * 4


@isolated
@pytest.mark.parametrize(
    "spoil",
    [
        "os.chmod('.', 0)",
        "open('left', 'w').write('x'); os.chmod('.', 0o300)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (0, 0))",
        "resource.prlimit(os.getppid(), resource.RLIMIT_AS, (1 << 20, 1 << 20))",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    ],
)
def test_a_program_cannot_spoil_the_next_run_in_its_sandbox(folder, isolation, spoil):
    (folder / "main.py").write_text(
        "import os, resource\nprint(os.listdir('.'), os.getpriority(os.PRIO_PROCESS, 0))\n"
        f"if input() == 'spoil':\n    try:\n        {spoil}\n    except OSError:\n        pass"
    )
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        first, second = [sandbox.run(command, stdin, forked=True) for stdin in ("spoil", "go")]
    assert (second.status, second.stdout) == ("ok", first.stdout)


def test_the_server_does_not_start_where_it_would_kill_other_processes(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = {"control": theirs.fileno(), "scratch": str(tmp_path), "confine": None, "preload": False}
    command = [sys.executable, "-c", Path(inside.__file__).read_text(), json.dumps(options)]
    with ours, theirs:
        done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "no process namespace" in done.stderr


LATE = """
import os, signal, socket, sys
from open_r1.rewards.code import inside
inside.end_namespace = lambda: os.kill(os.getpid(), signal.SIGTERM)
server = inside.Server(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], None)
server.folders = [sys.argv[2]]
server.serve()
"""


def test_a_signal_that_comes_as_a_program_ends_is_not_for_the_next(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", LATE, str(theirs.fileno()), str(tmp_path)]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process, ours, theirs:
        ours.settimeout(60)
        for _ in range(3):
            request = {"command": ["/bin/true"], "limits": {}, "forked": False}
            socket.send_fds(ours, [json.dumps(request).encode()], [0, 1])
            assert json.loads(ours.recv(256))["code"] == 0
        process.kill()


@every
def test_a_program_that_ends_its_sandbox_fails_alone(folder, isolation):
    (folder / "main.py").write_text("import os, signal\nif input() == 'kill': os.kill(os.getppid(), 9)\nprint('alive')")
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        statuses = [sandbox.run(command, stdin, forked=True).status for stdin in ("go", "kill", "go")]
    assert statuses == ["ok", "error", "ok"]


@isolated
def test_modules_that_are_loaded_before_a_fork_behave_as_freshly_imported(folder, isolation):
    (folder / "main.py").write_text(
        "import sys\nloaded = 'random' in sys.modules and 'typing' in sys.modules\n"
        "import decimal, random\n"
        "print(loaded, decimal.getcontext().prec, '' in sys.path, sys.getrecursionlimit(), random.random())\n"
        "decimal.getcontext().prec = 5\nrandom.random = lambda: 0\nsys.path.append('')\nsys.setrecursionlimit(9999)"
    )
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        first, second = (sandbox.run(command, forked=True).stdout.split() for _ in range(2))
    assert first[:4] == second[:4] == ["True", "28", "False", "1000"]
    assert first[4] != second[4]


@isolated
@pytest.mark.parametrize(
    "source",
    [
        "import sys\nprint(__name__, len(sys.argv), sys.stdin.read())",
        "import atexit, threading\natexit.register(print, 'end')\nthreading.Thread(target=print, args=(1,)).start()",
        "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))))",
        "def f(n): return n and f(n - 1)\nimport sys\nsys.setrecursionlimit(5000)\nprint(f(4000))",
        "for line in open(0): print(line.upper(), end='')",
        "class A:\n    def __del__(self): print('gone')\na = A()\nprint('here')",
        "import concurrent.futures as c\nc.ThreadPoolExecutor(2).submit(print, 'later')",
        "raise SystemExit(3)",
        "raise SystemExit('no')",
        "import sys\nsys.stdout.close()",
        "import sys\nprint('here')\nsys.stdout = None",
        "import io, sys\nprint('here')\nsys.stdout = io.StringIO()\nprint('nowhere')",
        "import os, sys\nclass A:\n    held = b''\n    def write(self, text): self.held += text.encode()\n"
        "    def flush(self): self.held = self.held[os.write(1, self.held):]\nsys.stdout = A()\nprint('here')",
        "import sys\nclass A:\n    write, flush = sys.stdout.write, sys.stdout.flush\nsys.stdout = A()\nprint('here')",
        "1 / 0",
    ],
)
def test_a_program_in_a_fork_behaves_as_in_an_interpreter_of_its_own(source, folder, isolation):
    (folder / "main.py").write_text(source)
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        assert sandbox.run(command, "a\nb\n", forked=True) == sandbox.run(command, "a\nb\n")
