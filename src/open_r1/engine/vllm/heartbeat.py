"""Detects vLLM servers that hang. A server that dies closes its connections; one that hangs keeps them open."""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

SILENT_SECONDS = 60.0
"""A busy server that fails its health checks for this long counts as hanging."""
CHECK_SECONDS = 5.0
"""Interval between health checks."""


class Watched(Protocol):
    """The interface of a server that a heartbeat needs."""

    silent: bool

    @property
    def busy(self) -> bool: ...
    def is_up(self) -> bool: ...
    def break_off(self) -> None: ...


class Heartbeat:
    """Checks the health of busy servers in a thread. After `SILENT_SECONDS` without an answer, a server is marked
    `silent` and its requests are aborted, so that they fail like those of a server that has died."""

    def __init__(self, servers: Sequence[Watched]) -> None:
        self.servers = servers
        self._failing: dict[int, float] = {}
        """For each server that fails its health checks, the time of the first failure."""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread, if it has not started."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="vllm-heartbeat", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(CHECK_SECONDS):
            for index, server in enumerate(self.servers):
                now = time.monotonic()
                if not server.busy or server.is_up():
                    self._failing.pop(index, None)
                elif now - self._failing.setdefault(index, now) >= SILENT_SECONDS:
                    server.silent = True
                    server.break_off()
