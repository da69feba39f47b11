"""What each isolation keeps programs from: lines of the table in docs/rewards.md."""

import ctypes
import os
import platform
import re
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sandboxes import as_another_user, every, execute, isolated, needs_compiler, needs_filter, only

from open_r1.errors import UserError
from open_r1.rewards.code import choose
from open_r1.rewards.code.cases import Case, store
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.isolation import Isolation, interpreter
from open_r1.rewards.code.rewards import code_reward
from open_r1.rewards.code.sandbox import Sandbox, run
from open_r1.rewards.code.seccomp import (
    _ATTRIBUTES,
    _DENIED,
    _FCNTL,
    _LOCKS,
    _MMAP,
    _PRCTL,
    _PRLIMIT64,
    _SETSOCKOPT,
    _SIGACTION,
    _SOCKETPAIR,
)


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
@needs_filter
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


@every
@needs_filter
@pytest.mark.parametrize(
    "use", ["os.chmod({}, 0)", "os.utime({}, (0, 0))", "os.setxattr({}, 'user.a', b'')", "os.listxattr({})"]
)
def test_attributes_of_files_of_the_same_user_cannot_be_changed(folder, tmp_path, isolation, use):
    (tmp_path / "precious").write_text("x")
    before = (tmp_path / "precious").stat()
    source = f"import os\ntry: {use.format(repr(str(tmp_path / 'precious')))}\nexcept OSError: print('refused')"
    assert execute(source, folder, replace(isolation, user=None, shared_count=True)).stdout == "refused\n"
    assert (tmp_path / "precious").stat() == before


@as_another_user
def test_expected_outputs_cannot_be_read_in_the_file_of_the_judge(folder, isolation):
    stored = store([Case("1", "EXPECTED")])
    outcome = execute(f"print('EXPECTED' in open({stored.path!r}, errors='replace').read())", folder, isolation)
    assert (outcome.status, outcome.stdout) == ("error", "") and Path(stored.path).exists()


@every
@pytest.mark.skipif(os.geteuid() != 0, reason="this user has no capabilities to lose")
@pytest.mark.parametrize("forked", [True, False])
def test_programs_that_run_as_root_have_no_rights_of_root(folder, isolation, forked):
    name = os.uname().nodename.encode()
    (folder / "main.py").write_text(
        "import ctypes, os, stat\n"
        f"print(ctypes.CDLL(None).sethostname({name}, {len(name)}))\n"
        "for attempt in (lambda: os.mknod('memory', stat.S_IFCHR | 0o666, os.makedev(1, 1)), lambda: os.setuid(1)):\n"
        "    try: print(attempt())\n    except OSError: print('refused')"
    )
    with Sandbox(folder, replace(isolation, user=None, shared_count=True)) as sandbox:
        outcome = sandbox.run([interpreter(), "{code}/main.py"], forked=forked)
    assert outcome.stdout == "-1\nrefused\nrefused\n"


@every
@needs_filter
def test_files_of_the_machine_cannot_be_locked(folder, isolation):
    source = (
        "import fcntl, os\nfolder, mine = os.open('/usr/bin', os.O_RDONLY), open('mine', 'w')\n"
        "for lock in (lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB),\n"
        "             lambda: fcntl.fcntl(mine, fcntl.F_SETLEASE, fcntl.F_WRLCK)):\n"
        "    try: print(lock())\n    except PermissionError: print('refused')"
    )
    assert execute(source, folder, isolation).stdout == "refused\nrefused\n"


@every
def test_names_and_sizes_of_files_cannot_be_seen_under_bubblewrap_only(folder, isolation):
    source = "import os\nprint(os.path.exists('/etc/passwd') and os.path.getsize('/etc/passwd') > 0)"
    assert execute(source, folder, isolation).stdout == f"{isolation.kind != 'bubblewrap'}\n"


@every
@needs_filter
def test_refused_system_calls_are(folder, isolation):
    attributes = {} if isolation.kind == "bubblewrap" else _ATTRIBUTES
    column = ["x86_64", "aarch64"].index(platform.machine())
    numbers = {name: pair[column] for name, pair in (_DENIED | _LOCKS | attributes).items() if pair[column] is not None}
    source = (
        f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor name, number in {numbers}.items():\n"
        "    if libc.syscall(number, -1, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1: print(name)"
    )
    outcome = execute(source, folder, isolation)
    assert (outcome.status, outcome.stdout) == ("ok", "")


@only("bubblewrap")
def test_there_are_no_terminals(folder, isolation):
    assert execute("import os\nos.openpty()", folder, isolation).status == "error"


@every
@needs_filter
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
            "mmap": _MMAP,
            "prctl": _PRCTL,
            "prlimit64": _PRLIMIT64,
        }
        for name, numbers in (_DENIED | _LOCKS | _ATTRIBUTES | special).items():
            known = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
            assert numbers[column] is None or known in (numbers[column], -1), name
    assert struct.calcsize("=HBBI") == 8 and sys.byteorder == "little"


def test_each_line_of_the_table_in_the_docs_names_its_tests():
    docs = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    table = docs.split("| what a program tries |")[1].split("\n\n")[0].splitlines()[2:]
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for line in table:
        names = re.findall(r"`(\w+)`", line.rsplit("|", 2)[1])
        assert names and all(re.search(rf"def test_\w*{name}", tests) for name in names), line
