"""Runs a Python script in processes forked from one that has already imported what training needs.

A fresh interpreter spends 6 CPU seconds on imports before a run of a few steps begins. Each process that runs tests
has one server (`python forked.py`), started when it is first needed; it computes nothing itself, so that forking it
is safe, and it ends with the tests.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from patience import PATIENCE

PRELOADED = ("open_r1.sft", "open_r1.grpo", "open_r1.evaluate", "accelerate", "peft", "sympy", "torch._dynamo")


def run(script, argv, environments, timeout=PATIENCE):
    """Runs `script` once for each environment, at the same time, and returns them as one completed process.

    The status is that of the first that fails; the others are then terminated. All write to the same output.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        job = {
            "script": str(script),
            "argv": list(map(str, argv)),
            "environments": environments,
            "folder": str(Path.cwd()),
            "outputs": [str(output), str(errors)],
            "timeout": timeout,
        }
        server = _server()
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess([str(script), *argv], code, output.read_text(), errors.read_text())


@functools.cache
def _server():
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and server.communicate())  # not in what the tests fork
    return server


def _serve():
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints is taken for a reply
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what is never collected is never copied
    for line in sys.stdin:
        job = json.loads(line)
        pids = []
        for environment in job["environments"]:
            pids.append(os.fork())
            if pids[-1] == 0:
                replies.close()
                return _become(job, environment)
        replies.write(f"{_wait_for(pids, job['timeout'])}\n")
        replies.flush()
    return None


def _become(job, environment):
    """Runs the job's script as `python script argv` does."""
    for descriptor, path in enumerate([os.devnull, *job["outputs"]]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [job["script"], *job["argv"]]
    sys.path[:1] = [str(Path(job["script"]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(job["script"], run_name="__main__")


def _wait_for(pids, timeout):
    """Waits for all; the first that fails ends the others. Returns its status, or 0."""
    left, first = set(pids), 0
    signal.signal(signal.SIGALRM, lambda *_: [os.kill(pid, signal.SIGKILL) for pid in left])
    signal.alarm(timeout)
    while left:
        pid, status = os.wait()
        left.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if code and not first:
            first = code
            for other in left:
                os.kill(other, signal.SIGTERM)
    signal.alarm(0)
    return first


if __name__ == "__main__":
    _serve()
