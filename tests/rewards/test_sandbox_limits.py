"""What programs may use, and what is ended when they do: lines of the table in docs/rewards.md."""

import os
import resource
import subprocess
import threading
import time
from pathlib import Path

import pytest
from sandboxes import as_another_user, every, execute, isolated, needs_compiler, needs_filter

from open_r1.rewards.code import cgroup, local
from open_r1.rewards.code.cases import Case
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.judge import Result, judge
from open_r1.rewards.code.local import LocalProvider
from open_r1.rewards.code.programs import program
from open_r1.rewards.code.sandbox import Limits, Sandbox

SOCKETS = """
import os, socket, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held, sockets = 0, []
try:
    while held < 400 << 20:
        pair = socket.socketpair()
        sockets += pair
        for end in pair:
            try: end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            except PermissionError: pass
            end.setblocking(False)
            try:
                while True: held += end.send(b'x' * 65536)
            except BlockingIOError: pass
except OSError: pass
print(held >> 20)
"""


@every
def test_buffers_of_sockets_are_bounded_by_few_descriptors(folder, isolation, monkeypatch):
    monkeypatch.setattr(cgroup, "find_parent", lambda: None)
    outcome = execute(SOCKETS, folder, isolation)
    assert outcome.status == "ok" and int(outcome.stdout) < 64


@every
@pytest.mark.skipif(cgroup.find_parent() is None, reason="no control group can be made here")
def test_a_control_group_counts_buffers_of_sockets_too(folder, isolation):
    local.close_sandboxes()
    source = f"import os\nfor _ in range(16):\n    if os.fork() == 0: break\n{SOCKETS}\nimport time\ntime.sleep(1)"
    assert execute(source, folder, isolation, memory_mb=48, seconds=5.0).status == "memory"
    assert not list(cgroup.find_parent().folder.glob(f"open-r1-{os.getpid()}-*"))


@every
def test_memory_is_watched_when_output_is_closed(folder, isolation, monkeypatch):
    monkeypatch.setattr(cgroup, "find_parent", lambda: None)
    source = (
        "import os, time\nos.close(1)\nos.close(2)\n"
        "for _ in range(4):\n    if os.fork() == 0:\n        held = bytearray(60 << 20)\n        time.sleep(30)\n"
        "time.sleep(30)\n"
    )
    assert execute(source, folder, isolation, memory_mb=128).status == "memory"


TABLES = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
size = 1 << 36
start = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
for address in range(start, start + size, 2 << 20): ctypes.c_char.from_address(address).value
time.sleep(5)
"""


@every
def test_memory_in_page_tables_counts(folder, isolation, monkeypatch):
    monkeypatch.setattr(cgroup, "find_parent", lambda: None)
    outcome = execute(TABLES, folder, isolation, memory_mb=64, address_space=False, seconds=5.0)
    assert outcome.status == "memory"


CORE = int(resource.getrlimit(resource.RLIMIT_CORE)[1] != 0)
UNCOUNTED = """
import ctypes, mmap, os, resource
mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for attempt in (
    lambda: mmap.mmap(-1, 4096, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    lambda: mmap.mmap(-1, 2 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000),
    lambda: mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096),
):
    try: attempt(), print('held')
    except (PermissionError, FileNotFoundError): print('refused')
print(ctypes.CDLL(None).prctl(4, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@every
@needs_filter
def test_memory_that_no_limit_counts_cannot_be_had(folder, isolation):
    zero = "held" if isolation.kind == "limits" else "refused"
    assert execute(UNCOUNTED, folder, isolation).stdout == f"refused\nrefused\n{zero}\n-1 ({CORE}, {CORE})\n"


@every
def test_the_limit_of_processes_is_that_of_the_tree(folder, isolation):
    bystanders = [subprocess.Popen(["sleep", "60"], user=isolation.user) for _ in range(30)]
    try:
        threads = "import threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()"
        assert execute(threads, folder, isolation).stdout == "1\n"
        many = "import os, time\nfor _ in range(60):\n    if os.fork() == 0: time.sleep(30)\ntime.sleep(30)"
        assert execute(many, folder, isolation).status in ("error", "processes")
    finally:
        for bystander in bystanders:
            bystander.kill()
            bystander.wait()


LEFT = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(97)\n    os._exit(0)\n"


@as_another_user
@pytest.mark.parametrize(
    "source",
    [
        LEFT,
        f"{LEFT}time.sleep(0.1)\nimport signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os\nif os.fork() == 0:\n    while True:\n        if os.fork(): os._exit(0)\n",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    ],
    ids=["detached", "ends the one that serves", "never the same process", "as many as it can"],
)
def test_what_a_program_leaves_running_ends(folder, isolation, source):
    execute(source, folder, isolation, seconds=0.5)
    deadline = time.monotonic() + 20
    while any(str(folder) in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


MAP_ONLY = """
import ctypes, os
def map_only(number):
    with open('gone', 'w+b', 0) as file:
        os.unlink('gone')
        file.write(bytes(4 << 20))
        ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 0, 2, file.fileno(), ctypes.c_long(0))
"""


@isolated
@pytest.mark.parametrize(
    "write",
    [
        "open(str(number), 'wb').write(block)",
        "files.append(open('same', 'wb', 0)); os.unlink('same'); files[-1].write(block)",
        "map_only(number); block",
        "open(str(number), 'wb').close()",
        "os.mkdir('deeper'); os.chdir('deeper')",
    ],
)
def test_what_a_program_writes_is_bounded_and_removed(folder, isolation, write):
    (folder / "main.py").write_text(
        f"{MAP_ONLY}\nimport os\nprint(os.listdir('.'))\nif input() == 'fill':\n    block, files = bytes(4 << 20), []\n"
        f"    for number in range(50 if {'block' in write} else 3000): {write}\n    import time\n    time.sleep(1)"
    )
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        first, second = [sandbox.run(command, stdin, forked=True) for stdin in ("fill", "go")]
    full = "error" if isolation.kind == "bubblewrap" and "block" in write else "output"  # a file system of its own
    assert (first.status, second.stdout) == (full, "[]\n")


@isolated
def test_a_file_without_a_name_may_be_shared_by_the_processes_of_a_program(folder, isolation):
    source = (
        "import mmap, os, tempfile, time\nfile = tempfile.TemporaryFile()\nfile.truncate(4096)\n"
        "memory = mmap.mmap(file.fileno(), 4096)\nif os.fork() == 0:\n    memory[0] = 7\n    os._exit(0)\n"
        "os.wait()\ntime.sleep(0.2)\nprint(memory[0])"
    )
    assert execute(source, folder, isolation).stdout == "7\n"


@every
@needs_filter
def test_processor_time_of_children_counts_whose_parent_does_not_wait(folder, isolation):
    source = (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "for _ in range(30):\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.1: pass\n        os._exit(0)\n"
        "    try: os.wait()\n    except ChildProcessError: pass\nprint('done')"
    )
    assert execute(source, folder, isolation, seconds=0.5, wall_seconds=60).stdout == ""


SLOW = "constexpr int f(int n) { int s = 0; for (int i = 0; i < n; i++) s += i % 7; return s; }\n" + "\n".join(
    f"constexpr int v{k} = f({200_000 + k});" for k in range(400)
)

LARGE = "template <int n> struct A { char c[n]; static int f() { return A<n - 1>::f() + sizeof(A); } };" + (
    "template <> struct A<0> { static int f() { return 0; } };\n"
    + "\n".join(f"int g{k}() {{ return A<{800 + k}>::f(); }}" for k in range(90))
)


@every
@needs_compiler
@pytest.mark.parametrize(("source", "memory_mb", "status"), [(SLOW, 1024, "time"), (LARGE, 40, "memory")])
def test_hostile_sources_cost_no_more_than_the_limits_of_a_compiler(source, memory_mb, status, isolation, monkeypatch):
    monkeypatch.setattr(local, "COMPILE", Limits(seconds=0.5, memory_mb=memory_mb))
    opened = LocalProvider(isolation).open(program(f"{source}\nint main() {{}}\n", "cpp"), Limits())
    with pytest.raises(local.CompileError) as error, opened:
        pass
    # the compiler may see its address space end before the judge sees its memory
    assert str(error.value) in ((status, "error") if status == "memory" else (status,))
    if status == "memory":  # and for no other reason
        monkeypatch.setattr(local, "COMPILE", Limits(seconds=30, memory_mb=1024))
        with LocalProvider(isolation).open(program(f"{source}\nint main() {{}}\n", "cpp"), Limits()):
            pass


def test_tests_that_run_at_once_get_no_more_sandboxes_than_there_are_cores(monkeypatch):
    started = []

    class Counted(Sandbox):
        def __init__(self, *arguments):
            started.append(self)
            super().__init__(*arguments)

    local.close_sandboxes()
    monkeypatch.setattr(local, "Sandbox", Counted)
    monkeypatch.setattr(local._rooms, "more", threading.Semaphore(2), raising=False)
    tests = [Case(str(number), str(number)) for number in range(12)]
    source = "import time\ntime.sleep(0.05)\nprint(input())"
    result = judge(LocalProvider(best_isolation()), program(source, "python"), tests, Limits(), batch_size=-1)
    assert result == Result(12, 12)
    assert len(started) <= 3


DEEP = """
#include <iostream>
long depth(long n) {
    volatile long kept[8] = {n};
    if (n == 0) return 0;
    kept[1] = depth(kept[0] - 1);
    return kept[1] % 1000000007 + 1;
}
int main() { long n; std::cin >> n; std::cout << depth(n); }
"""


@isolated
@needs_compiler
def test_the_stack_is_bounded_by_memory_only(isolation):
    with LocalProvider(isolation).open(program(DEEP, "cpp"), Limits(seconds=10.0)) as run_on:
        assert run_on("1000000").stdout == "1000000"
        assert run_on("100000000").status in ("error", "memory")
