"""The process that compares answers. It reads requests from stdin and writes replies to stdout, one JSON line each.

It limits its memory, and its CPU time per request. It exits when its parent does.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """`python -m open_r1.rewards.worker SECONDS MEMORY_MB MODULE`; the module has a function `answer`."""
    for number in (signal.SIGUSR1, signal.SIGTERM):  # meant for the parent, whose step is finished first
        signal.signal(number, signal.SIG_IGN)
    seconds, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_with_parent()
    answer = importlib.import_module(sys.argv[3]).answer
    limit_memory(memory_mb)
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        limit_cpu(seconds + 2)
        print(json.dumps(reply(answer, json.loads(line))), file=replies, flush=True)


def reply(answer: Callable[[dict], Any], request: dict) -> dict:
    """Reply to one request: `{"value": ...}`, or `{"limit": ...}`, after which this process must be replaced."""
    try:
        return {"value": answer(request)}
    except (MemoryError, RecursionError) as error:
        return {"limit": "memory" if isinstance(error, MemoryError) else "nesting"}


def end_with_parent() -> None:
    """Makes the kernel (Linux) kill this process when the thread that started it ends, even in a long computation."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory(megabytes: int) -> None:
    """Limits the address space, including what is already mapped."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def limit_cpu(seconds: float) -> None:
    """Kills this process (SIGXCPU) after this much more CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


if __name__ == "__main__":
    main()
