"""The process that compares answers. It reads requests from stdin and writes replies to stdout, one JSON line each.

It limits its memory, and its CPU time per request. It ends when its parent does.
"""

import ctypes
import importlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from open_r1.rewards.pool import END_SECONDS

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """`python -m open_r1.rewards.worker SECONDS MEMORY_MB MODULE [SIGNAL]`; the module has a function `answer`, and
    SIGNAL comes when the parent ends (default: SIGKILL). SECONDS `inf` and MEMORY_MB 0: no limit."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):  # meant for the parent, which finishes its step
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which programs would inherit
    signal.signal(signal.SIGHUP, _end)
    seconds, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    end_with_parent(int(sys.argv[4]) if len(sys.argv) > 4 else signal.SIGKILL)
    answer = importlib.import_module(sys.argv[3]).answer
    if memory_mb:
        limit_memory(memory_mb)
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        if seconds != math.inf:
            limit_cpu(seconds + 2)
        print(json.dumps(reply(answer, json.loads(line))), file=replies, flush=True)


def reply(answer: Callable[[dict], Any], request: dict) -> dict:
    """Reply to one request: `{"value": ...}`, or `{"limit": ...}`, after which this process must be replaced."""
    try:
        return {"value": answer(request)}
    except (MemoryError, RecursionError) as error:
        return {"limit": "memory" if isinstance(error, MemoryError) else "nesting"}


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Makes the kernel (Linux) send a signal to this process when the thread that started it ends. SIGKILL ends even a
    long computation."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _end(*_: Any) -> None:
    """Leaves by way of every `finally`. The alarm ends a process that gets stuck there."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.alarm(END_SECONDS)
    sys.exit()


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
