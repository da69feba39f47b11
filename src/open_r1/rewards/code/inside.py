"""Runs inside the sandbox, under the system's interpreter: starts a program for each test, one after another.

It gets its requests over a socket, each with the two ends of pipes that become the program's stdin and stdout, and
answers with the exit code once nothing of the program is left. A Python program runs in a fork of this interpreter,
which saves its start. Under bubblewrap this process is as confined as the programs. Otherwise each program confines
itself before it begins, and this process stays outside, where programs cannot reach it. Only the standard library may
be imported here, and of it what is quick.
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

MOST_FILES = 4096


class Server:
    """Runs the judge's requests. A program calls `confine` before it begins; None in a namespace of its own."""

    def __init__(self, control: socket.socket, scratch: str, confine: "Callable[[], None] | None") -> None:
        self.control, self.confine = control, confine
        self.judge = os.getppid()
        self.folders = [scratch] if confine else [scratch, "/dev/shm"]
        self.hang_up = select.poll()
        self.hang_up.register(control, 0)

    def serve(self) -> "list[str]":
        """Serves until the judge hangs up. In a fork that is to run a Python program: returns its command."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        while True:
            request, pipes = self.request()
            child = os.fork()
            if child == 0:
                self.begin(request, pipes)
                return request["command"]
            for pipe in pipes:
                os.close(pipe)
            reply = self.wait(child)
            self.end_programs()
            if reply is None:
                os._exit(0)
            if "code" in reply:
                for folder in self.folders:
                    clean(folder)
            self.control.send(json.dumps(reply).encode())

    def request(self) -> "tuple[dict, list[int]]":
        """The judge's next."""
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
        """In the child: becomes the program, but for one in Python, which is left to the caller."""
        try:
            self.control.close()
            os.setsid()
            for number, pipe in enumerate(pipes):
                os.dup2(pipe, number)
                os.close(pipe)
            os.chdir(self.folders[0])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for name, value in request["limits"].items():
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            if self.confine is not None:
                self.confine()
            if not request["forked"]:
                os.execv(request["command"][0], request["command"])
        except BaseException:
            os._exit(127)

    def wait(self, child: int) -> "dict | None":
        """How the program ended; `full` for one that makes too many files; None once the judge is gone."""
        while True:
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
            pid = -1
            while pid:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == child:
                    return {"code": os.waitstatus_to_exitcode(status)}
            if self.hang_up.poll(0) or os.getppid() != self.judge:
                return None
            if self.confine is None and any(map(crowded, self.folders)):
                return {"full": True}

    def end_programs(self) -> None:
        """Kills all that is left of a test, and returns when it is gone."""
        if self.confine is None:
            try:
                while True:
                    os.kill(-1, signal.SIGKILL)  # the namespace holds only this process and its children
                    time.sleep(0.0005)
            except ProcessLookupError:
                return
        try:
            while True:  # what was detached is this process's child, at the latest once its parent is gone
                with open(f"/proc/self/task/{os.getpid()}/children") as children:
                    for pid in children.read().split():
                        os.kill(int(pid), signal.SIGKILL)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def crowded(folder: str) -> bool:
    """Whether a file system in memory holds more files than a program needs: its limit counts only their bytes."""
    now = os.statvfs(folder)
    return now.f_files - now.f_ffree > MOST_FILES


def clean(top: str) -> None:
    """Removes what a program left lying."""
    os.chmod(top, 0o777)
    with os.scandir(top) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            clean(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)


def confinement(options: dict) -> "Callable[[], None]":
    """What a process does to itself without bubblewrap: becomes another user, and gives up files, signals and memory of
    other processes (Landlock) and system calls (the filter). Raises OSError where the kernel cannot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"system call {number}")
        return int(result)

    no_new_privileges, set_filter, adopt = 38, 22, 36
    libc.prctl(adopt, 1, 0, 0, 0)  # what programs detach becomes a child of this process
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
        file_rights = (execute | write | read_file | truncate | 1 << 15) & every
        seen = [(path, execute | read_file | read_folder) for path in options["read_only"]]
        seen += [(path, every) for path in options["writable"]]
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
        if rules >= 0:
            call(apply, rules, 0)
            os.close(rules)
        code = ctypes.create_string_buffer(filter_program, len(filter_program))
        program = (ctypes.c_uint64 * 2)(len(filter_program) // 8, ctypes.addressof(code))
        if filter_program and libc.prctl(set_filter, 2, program, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")

    return confine


def main() -> None:
    """`python -c SOURCE OPTIONS`, with the socket's number and the rest of the options as JSON."""
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=options["control"])
    os.set_inheritable(options["control"], False)
    confine = None if options["confine"] is None else confinement(options["confine"])
    server = Server(control, options["scratch"], confine)
    control.send(b"{}")
    gc.disable()  # what was there before a fork is shared with it, not touched
    gc.freeze()
    command = server.serve()
    run_program(command[1:])


def run_program(arguments: "list[str]") -> None:
    """Runs a Python file as an interpreter of its own would, up to its end: threads, exit functions, output. The
    rest of the interpreter is not taken down, which would take ten times as long as most programs."""
    path = arguments[0]
    sys.argv = arguments
    sys.path[0] = os.path.dirname(path)
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
        module.__dict__.clear()  # finalizers of its objects may print
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BaseException:
        code = code or 1
    os._exit(code & 255)


if __name__ == "__main__":
    main()
