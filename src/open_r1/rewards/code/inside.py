"""The server inside the sandbox, under the system's interpreter: starts a program for each test, one after another.

Requests come over a socket, each with the ends of two pipes that become the program's stdin and stdout. The reply is
the exit code, sent once nothing of the program is left. A Python program runs in a fork of this interpreter, which
saves the time to start one. Under bubblewrap, this process is as confined as the programs. Otherwise each program
confines itself before it begins, and this process stays outside, where programs cannot reach it. This module may import
only the standard library.
"""

import atexit
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

MOST_FILES = 1000
PRELOADED = "bisect copy datetime decimal fractions heapq itertools math operator random statistics string typing"
"""Modules that many programs import, except those that start threads or watch forks (`queue`), which make every fork
slower. `random` reseeds itself after a fork."""
WAITED = (signal.SIGCHLD, signal.SIGTERM)
"""A program has ended; the judge has ended or has no more requests."""


class Server:
    """Serves the judge's requests. Programs call `confine` before they begin (None under bubblewrap)."""

    def __init__(self, control: socket.socket, scratch: str, confine: "Callable[[], None] | None") -> None:
        self.control, self.confine = control, confine
        self.judge = os.getppid()
        self.folders = [scratch] if confine else [scratch, "/dev/shm"]
        self.hang_up = select.poll()
        self.hang_up.register(control, 0)

    def serve(self) -> "list[str]":
        """Serves until the judge hangs up. Returns only in a fork that is to run a Python program: its command."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
        while True:
            request, pipes = self.request()
            child = os.fork()
            if child == 0:
                self.begin(request, pipes)
                return request["command"]
            for pipe in pipes:
                os.close(pipe)
            reply = self.wait(child)
            end_namespace() if self.confine is None else end_descendants()
            while signal.sigtimedwait(WAITED, 0):  # what the program sent at its end is not meant for the next
                pass
            for folder in self.folders:
                clean(folder)
            if reply is None:
                os._exit(0)
            self.control.send(json.dumps(reply | {"cpu_seconds": sum(os.times()[:4])}).encode())

    def request(self) -> "tuple[dict, list[int]]":
        """The judge's next request, with the ends of the pipes. Exits if the judge is gone."""
        self.control.settimeout(1)
        while os.getppid() == self.judge:
            try:
                message, pipes, _, _ = socket.recv_fds(self.control, 1 << 16, 2)
            except TimeoutError:
                continue
            if not message:
                break
            return json.loads(message), pipes
        os._exit(0)

    def begin(self, request: dict, pipes: "list[int]") -> None:
        """In the child: becomes the program. Returns if it is a forked Python program, which the caller runs."""
        try:
            self.control.close()
            os.setsid()
            for number, pipe in enumerate(pipes):
                os.dup2(pipe, number)
                os.close(pipe)
            os.chdir(self.folders[0])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED)
            if self.confine is not None:
                self.confine()
            if resource.getrlimit(resource.RLIMIT_STACK)[1] == resource.RLIM_INFINITY:
                resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for name, value in request["limits"].items():
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            if not request["forked"]:
                os.execv(request["command"][0], request["command"])
        except BaseException:
            os._exit(127)

    def wait(self, child: int) -> "dict | None":
        """How the program ended (`full`: it made too many files); None if the judge is gone."""
        while True:
            received = signal.sigtimedwait(WAITED, 0.05)
            pid = -1
            while pid:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == child:
                    return {"code": os.waitstatus_to_exitcode(status)}
            ended = received is not None and received.si_signo == signal.SIGTERM
            if ended or self.hang_up.poll(0) or os.getppid() != self.judge:
                return None
            if self.confine is None and any(map(crowded, self.folders)):
                return {"full": True}


def tree(pid: int) -> "list[int]":
    """A process and its descendants."""
    found: list[int] = []
    queue = [pid]
    while queue:
        found.append(queue.pop())
        try:
            for thread in os.listdir(f"/proc/{found[-1]}/task"):
                queue += map(int, read(f"/proc/{found[-1]}/task/{thread}/children").split())
        except OSError:
            pass
    return found


def read(path: str) -> bytes:
    """The contents of a file in /proc, four times as fast as with `open`. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, 1 << 16)]
        while parts[-1]:
            parts.append(os.read(descriptor, 1 << 16))
    finally:
        os.close(descriptor)
    return b"".join(parts)


def end_descendants() -> None:
    """Kills and reaps all descendants of this process, which adopts detached ones. All are stopped first, and none is
    reaped meanwhile, so that they cannot exceed their limit however fast they start others."""
    while True:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            seen: set[int] = set()
            while new := set(tree(os.getpid())[1:]) - seen:
                for pid in new:
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        pass
                seen |= new
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.0005)


def end_namespace() -> None:
    """Kills all processes in the namespace except its first one and this one."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            time.sleep(0.0005)


def crowded(folder: str) -> bool:
    """Whether a file system in memory has too many files: its limit counts only their bytes."""
    now = os.statvfs(folder)
    return now.f_files - now.f_ffree > MOST_FILES


def clean(top: str, mode: int = 0o777) -> None:
    """Empties a folder. Moves inner folders up first, so that paths stay short however deep they are."""
    os.chmod(top, mode)
    folders = [top]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                folders.append(os.path.join(top, os.urandom(8).hex()))
                os.rename(entry.path, folders[-1])
            else:
                os.unlink(entry.path)
        if folder != top:
            os.rmdir(folder)


def confinement(options: dict) -> "Callable[[], None]":
    """The function with which a program confines itself without bubblewrap: it becomes another user, and gives up
    capabilities, files, and access to other processes (Landlock) and system calls (the filter). Raises `OSError` if
    the kernel does not support this."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"system call {number}")
        return int(result)

    no_new_privileges, set_filter, adopt, when_judge_ends = 38, 22, 36, 1
    libc.prctl(when_judge_ends, signal.SIGTERM, 0, 0, 0)
    libc.prctl(adopt, 1, 0, 0, 0)  # detached processes become children of this one
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    user, filter_program = options["user"], bytes.fromhex(options["filter"])
    create, add, apply = 444, 445, 446
    rules = -1
    if options["read_only"]:
        version = call(create, None, ctypes.c_size_t(0), 1)
        every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
        scopes = 3 if version >= 6 else 0  # abstract sockets, signals
        attributes = (ctypes.c_uint64 * 3)(every, 3 if version >= 4 else 0, scopes)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        rules = call(create, attributes, ctypes.c_size_t(size), 0)
        execute, write, read_file, read_folder, truncate = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
        devices = 1 << 6 | 1 << 11 | 1 << 15  # make them, speak to them
        file_rights = (execute | write | read_file | truncate | 1 << 15) & every
        seen = [(path, execute | read_file | read_folder) for path in options["read_only"]]
        seen += [(path, every & ~devices) for path in options["writable"]]
        for path, rights in [*seen, ("/dev/null", write | read_file)]:
            if os.path.exists(path):
                opened = os.open(path, os.O_PATH)
                allowed = rights if os.path.isdir(path) else rights & file_rights
                rule = (ctypes.c_uint8 * 12)(*allowed.to_bytes(8, "little"), *opened.to_bytes(4, "little"))
                call(add, rules, 1, rule, 0)
                os.close(opened)

    def confine() -> None:
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        no_capabilities = (ctypes.c_uint32 * 6)()
        if libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), no_capabilities):  # in case the user is still root
            raise OSError(ctypes.get_errno(), "capset")
        if rules >= 0:
            call(apply, rules, 0)
            os.close(rules)
        code = ctypes.create_string_buffer(filter_program, len(filter_program))
        program = (ctypes.c_uint64 * 2)(len(filter_program) // 8, ctypes.addressof(code))
        if filter_program and libc.prctl(set_filter, 2, program, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")

    return confine


def main() -> None:
    """`python -c SOURCE OPTIONS`, where the options are JSON: the socket's descriptor, `scratch` and `confine`."""
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=options["control"])
    os.set_inheritable(options["control"], False)
    confine = None if options["confine"] is None else confinement(options["confine"])
    if confine is None and os.getppid() != 1:
        sys.exit("there is no process namespace, so ending a program would kill every process of this user")
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 2)
    os.close(nothing)
    server = Server(control, options["scratch"], confine)
    sys.path.pop(0)  # the working directory, where programs write
    for name in PRELOADED.split() if options["preload"] else ():
        __import__(name)
    control.send(b"{}")
    compile("", "", "exec")  # initializes what every program would have to initialize after its fork
    gc.disable()  # so that memory from before a fork stays shared
    gc.freeze()
    command = server.serve()
    run_program(command[1:])


def run_program(arguments: "list[str]") -> None:
    """Runs a Python file as a new interpreter would, including threads, exit functions and output at its end. Skips the
    rest of the interpreter's shutdown, which would take ten times as long as most programs."""
    path = arguments[0]
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(path))
    module = type(sys)("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    gc.enable()
    code = 0
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec"), module.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        code = 1
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        flush(sys.stdout)  # the program may have replaced it with an object that needs the globals
        sys.stdout = sys.__stdout__
        module.__dict__.clear()  # finalizers of its objects may print
        flush(sys.stdout)
    except BaseException:
        code = code or 1
    os._exit(code & 255)


def flush(stream: "object") -> None:
    """Flushes a stream, unless it is None or closed."""
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
