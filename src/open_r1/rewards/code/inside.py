"""Runs inside the sandbox, under the system's interpreter: starts a program for each test, one after another.

It gets its requests over a socket, each with the two ends of pipes that become the program's stdin and stdout, and
answers with the exit code. A Python program runs in a fork of this interpreter, which saves its start. Only the
standard library may be imported here, and of it what is quick.
"""

import atexit
import gc
import json
import os
import resource
import signal
import socket
import sys


def serve(control: socket.socket, scratch: str, contained: bool) -> "list[str]":
    """Serves until the judge hangs up. In a fork that is to run a Python program: returns its command."""
    while True:
        message, pipes, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not message:
            os._exit(0)
        request = json.loads(message)
        child = os.fork()
        if child == 0:
            control.close()
            os.setsid()
            for number, pipe in enumerate(pipes):
                os.dup2(pipe, number)
                os.close(pipe)
            os.chdir(scratch)
            for name, value in request["limits"].items():
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            if request["forked"]:
                return request["command"]
            try:
                os.execv(request["command"][0], request["command"])
            finally:
                os._exit(127)
        for pipe in pipes:
            os.close(pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if contained:
            clean(scratch)
        control.send(json.dumps({"code": code}).encode())


def clean(scratch: str) -> None:
    """Ends what a program left running and removes what it left lying, before the next test."""
    try:
        os.kill(-1, signal.SIGKILL)  # the namespace holds only this process and its children
    except ProcessLookupError:
        pass
    for top in (scratch, "/dev/shm"):
        os.chmod(top, 0o700)
        for folder, folders, files in os.walk(top, topdown=False):
            for name in files:
                os.unlink(f"{folder}/{name}")
            for name in folders:
                path = f"{folder}/{name}"
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)


def restrict(read_only: "list[str]", writable: "list[str]", filter_program: bytes) -> None:
    """What a process can do to itself without bubblewrap: Landlock for files, signals and other processes' memory,
    and the filter of system calls. Raises OSError where the kernel cannot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"system call {number}")
        return int(result)

    no_new_privileges, set_filter, adopt = 38, 22, 36
    libc.prctl(adopt, 1, 0, 0, 0)  # what programs detach stays in the tree that the judge watches
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    if read_only:
        create, add, apply = 444, 445, 446
        version = call(create, None, ctypes.c_size_t(0), 1)
        every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
        scopes = 3 if version >= 6 else 0  # abstract sockets, signals
        attributes = (ctypes.c_uint64 * 3)(every, 3 if version >= 4 else 0, scopes)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        rules = call(create, attributes, ctypes.c_size_t(size), 0)
        execute, write, read_file, read_folder, truncate = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
        file_rights = (execute | write | read_file | truncate | 1 << 15) & every
        seen = [(path, execute | read_file | read_folder) for path in read_only]
        seen += [(path, every) for path in writable]
        for path, rights in [*seen, ("/dev/null", write | read_file)]:
            if os.path.exists(path):
                opened = os.open(path, os.O_PATH)
                allowed = rights if os.path.isdir(path) else rights & file_rights
                rule = (ctypes.c_uint8 * 12)(*allowed.to_bytes(8, "little"), *opened.to_bytes(4, "little"))
                call(add, rules, 1, rule, 0)
                os.close(opened)
        call(apply, rules, 0)
        os.close(rules)
    if filter_program:
        code = ctypes.create_string_buffer(filter_program, len(filter_program))
        program = (ctypes.c_uint64 * 2)(len(filter_program) // 8, ctypes.addressof(code))
        if libc.prctl(set_filter, 2, program, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")


def main() -> None:
    """`python -c SOURCE OPTIONS`, with the socket's number and the rest of the options as JSON."""
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=options["control"])
    os.set_inheritable(options["control"], False)
    if options["restrict"] is not None:
        restrict(options["restrict"], options["writable"], bytes.fromhex(options["filter"]))
    control.send(b"{}")
    gc.disable()  # what was there before a fork is shared with it, not touched
    gc.freeze()
    command = serve(control, options["scratch"], options["contained"])
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
