"""What each isolation stops: one test for each line of the table in docs/rewards.md."""

import ctypes
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.rewards.code import cgroup, choose, local
from open_r1.rewards.code.choose import best_isolation, candidates, works
from open_r1.rewards.code.isolation import Isolation, interpreter
from open_r1.rewards.code.judge import Case, Result, judge
from open_r1.rewards.code.local import LocalProvider
from open_r1.rewards.code.programs import LANGUAGES, declare, program
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.rewards import binary_code_reward, code_reward
from open_r1.rewards.code.sandbox import Limits, Sandbox, run
from open_r1.rewards.code.seccomp import (
    _ATTRIBUTES,
    _DENIED,
    _FCNTL,
    _PRLIMIT64,
    _SETSOCKOPT,
    _SIGACTION,
    _SOCKETPAIR,
    filter_program,
)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
KINDS = {isolation.kind: isolation for isolation in reversed(candidates()) if works(isolation)}


def only(*kinds):
    """One run for each of these isolations that works here."""
    found = [KINDS[kind] for kind in kinds if kind in KINDS]
    skip = pytest.mark.skip(reason="does not work here")
    return pytest.mark.parametrize(
        "isolation", found or [pytest.param(None, marks=skip)], ids=lambda i: i.kind if i else "none"
    )


every = only("bubblewrap", "landlock", "limits")
isolated = only("bubblewrap", "landlock")
as_another_user = every if os.geteuid() == 0 else isolated


def execute(source, folder, isolation, stdin="", **limits):
    (folder / "main.py").write_text(source)
    limits = Limits(**{"seconds": 1.0, "wall_seconds": 10.0, **limits})
    return run([interpreter(), "{code}/main.py"], folder, stdin=stdin, isolation=isolation, limits=limits)


@as_another_user
def test_expected_outputs_cannot_be_read_in_the_memory_of_the_judge(folder, isolation):
    secret = "EXPECTED-" + str(os.getpid() * 7919)
    source = (
        "import re, sys\n"
        f"for line in open('/proc/{os.getpid()}/maps'):\n"
        "    where, rights = line.split()[:2]\n"
        "    if 'rw' in rights:\n"
        "        low, high = (int(part, 16) for part in where.split('-'))\n"
        f"        memory = open('/proc/{os.getpid()}/mem', 'rb', 0)\n"
        "        memory.seek(low)\n"
        "        if re.search(rb'EXPECTED-\\d+', memory.read(high - low)): print('found')\n"
    )
    outcome = execute(source, folder, isolation)
    assert (outcome.status, outcome.stdout) == ("error", ""), secret


@isolated
@pytest.mark.parametrize("path", ["/etc/passwd", "/usr/local", "/usr/src", "/root", "/proc/1/environ"])
def test_files_of_the_machine_cannot_be_read(path, folder, isolation):
    source = f"import os\nprint(os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read())"
    outcome = execute(source, folder, isolation)
    assert (outcome.status, outcome.stdout) == ("error", "")


@isolated
@needs_compiler
@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__))])
def test_files_of_the_machine_cannot_be_compiled_in(path, folder, isolation):
    for line in (f'asm(".incbin \\"{path}\\"");', f'#include "{path}"'):
        (folder / "main.cpp").write_text(f"{line}\nint main() {{}}\n")
        folder.chmod(0o777)
        command = ["/usr/bin/g++", "-c", "{code}/main.cpp", "-o", "{code}/program"]
        assert run(command, folder, isolation=isolation, writable=True).status == "error"
        assert not (folder / "program").exists()


@every
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_VSOCK", "AF_PACKET", "AF_ALG"])
@pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
def test_sockets_of_no_family_can_be_opened(family, folder, isolation):
    source = f"import socket\ntry: socket.socket(socket.{family}, 3)\nexcept PermissionError: print('refused')"
    assert execute(source, folder, isolation).stdout == "refused\n"


@every
def test_event_loops_work(folder, isolation):
    assert execute("import asyncio\nasync def f(): print(1)\nasyncio.run(f())", folder, isolation).stdout == "1\n"


@as_another_user
def test_processes_outside_cannot_be_signalled(folder, isolation):
    user = None if isolation.kind == "limits" else isolation.user  # Landlock protects those of the same user too
    bystander = subprocess.Popen(["sleep", "60"], user=user)
    try:
        source = (
            f"import os\ntry: os.kill({bystander.pid}, 9)\nexcept (ProcessLookupError, PermissionError): print('no')"
        )
        assert execute(source, folder, isolation).stdout == "no\n"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


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


@every
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


@only("bubblewrap")
def test_a_sandbox_outlives_the_thread_that_started_it(folder, isolation):
    with Sandbox(folder, isolation) as sandbox:
        thread = threading.Thread(target=sandbox.start)
        thread.start()
        thread.join()
        with pytest.raises(subprocess.TimeoutExpired):
            sandbox._process.wait(0.5)


@isolated
@pytest.mark.parametrize(
    "write",
    [
        "open(str(number), 'wb').write(block)",
        "files.append(open('same', 'wb', 0)); os.unlink('same'); files[-1].write(block)",
        "open(str(number), 'wb').close()",
        "os.mkdir('deeper'); os.chdir('deeper')",
    ],
)
def test_what_a_program_writes_is_bounded_and_removed(folder, isolation, write):
    (folder / "main.py").write_text(
        "import os\nprint(os.listdir('.'))\nif input() == 'fill':\n    block, files = bytes(4 << 20), []\n"
        f"    for number in range(50 if {'block' in write} else 3000): {write}\n    import time\n    time.sleep(1)"
    )
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        first, second = [sandbox.run(command, stdin, forked=True) for stdin in ("fill", "go")]
    full = "error" if isolation.kind == "bubblewrap" and "block" in write else "output"  # a file system of its own
    assert (first.status, second.stdout) == (full, "[]\n")


@pytest.mark.skipif("landlock" not in KINDS, reason="does not work here")
@pytest.mark.parametrize("change", ["os.chmod({}, 0)", "os.utime({}, (0, 0))", "os.setxattr({}, 'user.a', b'')"])
def test_attributes_of_files_of_the_same_user_cannot_be_changed(folder, tmp_path, change):
    (tmp_path / "precious").write_text("x")
    before = (tmp_path / "precious").stat()
    source = f"import os\ntry: {change.format(repr(str(tmp_path / 'precious')))}\nexcept OSError: print('refused')"
    assert execute(source, folder, Isolation("landlock", None, (), shared_count=True)).stdout == "refused\n"
    assert (tmp_path / "precious").stat() == before


@every
@pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
def test_processor_time_of_children_counts_whose_parent_does_not_wait(folder, isolation):
    source = (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "for _ in range(30):\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.1: pass\n        os._exit(0)\n"
        "    try: os.wait()\n    except ChildProcessError: pass\nprint('done')"
    )
    assert execute(source, folder, isolation, seconds=0.5, wall_seconds=60).stdout == ""


@every
@pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
def test_refused_system_calls_are(folder, isolation):
    attributes = {} if isolation.kind == "bubblewrap" else _ATTRIBUTES
    column = ["x86_64", "aarch64"].index(platform.machine())
    numbers = {name: pair[column] for name, pair in (_DENIED | attributes).items() if pair[column] is not None}
    source = (
        f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor name, number in {numbers}.items():\n"
        "    if libc.syscall(number, -1, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1: print(name)"
    )
    outcome = execute(source, folder, isolation)
    assert (outcome.status, outcome.stdout) == ("ok", "")


@only("bubblewrap")
def test_there_are_no_terminals(folder, isolation):
    assert execute("import os\nos.openpty()", folder, isolation).status == "error"


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


@every
@pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
def test_a_datagram_reaches_no_socket_outside(folder, isolation):
    folder.chmod(0o777)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(str(folder / "s"))
        (folder / "s").chmod(0o777)
        outside.setblocking(False)
        pair = "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"
        execute(f"import socket\n{pair}\na.sendto(b'x', {str(folder / 's')!r})", folder, isolation)
        with pytest.raises(BlockingIOError):
            outside.recv(1)


@every
def test_a_program_that_ends_its_sandbox_fails_alone(folder, isolation):
    (folder / "main.py").write_text("import os, signal\nif input() == 'kill': os.kill(os.getppid(), 9)\nprint('alive')")
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        statuses = [sandbox.run(command, stdin, forked=True).status for stdin in ("go", "kill", "go")]
    assert statuses == ["ok", "error", "ok"]


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
        "1 / 0",
    ],
)
def test_a_program_in_a_fork_behaves_as_in_an_interpreter_of_its_own(source, folder, isolation):
    (folder / "main.py").write_text(source)
    command = [interpreter(), "{code}/main.py"]
    with Sandbox(folder, isolation) as sandbox:
        assert sandbox.run(command, "a\nb\n", forked=True) == sandbox.run(command, "a\nb\n")


SLOW = "constexpr int f(int n) { int s = 0; for (int i = 0; i < n; i++) s += i % 7; return s; }\n" + "\n".join(
    f"constexpr int v{k} = f({200_000 + k});" for k in range(400)
)
LARGE = "template <int n> struct A { char c[n]; static int f() { return A<n - 1>::f() + sizeof(A); } };" + (
    "template <> struct A<0> { static int f() { return 0; } };\n"
    + "\n".join(f"int g{k}() {{ return A<{800 + k}>::f(); }}" for k in range(90))
)


@needs_compiler
@pytest.mark.parametrize(("source", "memory_mb", "status"), [(SLOW, 1024, "time"), (LARGE, 40, "memory")])
def test_hostile_sources_cost_no_more_than_the_limits_of_a_compiler(source, memory_mb, status, monkeypatch):
    monkeypatch.setattr(local, "COMPILE", Limits(seconds=0.5, memory_mb=memory_mb))
    opened = LocalProvider().open(program(f"{source}\nint main() {{}}\n", "cpp"), Limits())
    with pytest.raises(local.CompileError) as error, opened:
        pass
    # the compiler may see its address space end before the judge sees its memory
    assert str(error.value) in ((status, "error") if status == "memory" else (status,))
    if status == "memory":  # and for no other reason
        monkeypatch.setattr(local, "COMPILE", Limits(seconds=30, memory_mb=1024))
        with LocalProvider().open(program(f"{source}\nint main() {{}}\n", "cpp"), Limits()):
            pass


def test_resource_limits_alone_are_refused_unless_asked_for(monkeypatch):
    weak = Isolation("limits", best_isolation().user, shared_count=True)
    monkeypatch.setattr(choose, "best_isolation", lambda: weak)
    answer = ["```python\nprint(1)\n```"]
    info = [{"test_cases": [{"input": "", "output": "1"}]}]
    with pytest.raises(UserError, match=r"code_provider is 'local', but neither bubblewrap nor Landlock.*unsafe"):
        code_reward(answer, info)
    assert code_reward(answer, info, provider_type="unsafe") == [1.0]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no table for this processor")
def test_numbers_of_system_calls_are_those_of_libseccomp():
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    for column, token in ((0, 0xC000003E), (1, 0xC00000B7)):
        special = {
            "rt_sigaction": _SIGACTION,
            "socketpair": _SOCKETPAIR,
            "setsockopt": _SETSOCKOPT,
            "fcntl": _FCNTL,
            "prlimit64": _PRLIMIT64,
        }
        for name, numbers in (_DENIED | _ATTRIBUTES | special).items():
            known = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
            assert numbers[column] is None or known in (numbers[column], -1), name
    assert struct.calcsize("=HBBI") == 8 and sys.byteorder == "little"


@pytest.fixture
def languages():
    known = dict(LANGUAGES)
    yield
    LANGUAGES.clear()
    LANGUAGES.update(known)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_language_is_declared_by_a_compiler_and_a_command(languages):
    declare("c | main.c | gcc -O1 -o {code}/program {code}/main.c | {code}/program")
    declare("shell | main.sh | | sh {code}/main.sh")
    c = '```c\n#include <stdio.h>\nint main() { int a; scanf("%d", &a); printf("%d", a + 1); }\n```'
    shell = "```shell\nread a\necho $((a + 1))\n```"
    cases = [{"input": "4\n", "output": "5"}, {"input": "6\n", "output": "7"}]
    info = [{"language": name, "test_cases": cases} for name in ("c", "shell")]
    assert code_reward([c, shell], info) == [1.0, 1.0]


def test_a_language_that_is_not_written_as_it_should_is_named():
    with pytest.raises(UserError, match="code_languages has 'rust': write a language as"):
        declare("rust")


def test_judging_may_begin_while_others_are_written_and_is_done_once(tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr("open_r1.rewards.code.rewards.judge", lambda *a, **k: judged.append(a) or Result(1, 1))
    answers = ["```python\nprint(1)\n```"] * 3 + ["```python\nprint(2)\n```"]
    info = [{"test_cases": [{"input": "", "output": "1"}]}] * 4
    assert binary_code_reward(answers[:2], info[:2], wait=False) == [None, None]
    assert binary_code_reward(answers, info) == [1.0] * 4
    assert len(judged) == 2 and not JUDGING._futures


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
    assert judge(LocalProvider(), program(source, "python"), tests, Limits(), batch_size=-1) == Result(12, 12)
    assert len(started) <= 3
