"""Detects vLLM servers that hang. A server that dies closes its connections; one that hangs keeps them open."""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

SILENT_SECONDS = 60.0
"""A busy server that answers no health check for so long hangs."""
CHECK_SECONDS = 5.0
"""Between health checks."""


class Watched(Protocol):
    """What a heartbeat needs of a server."""

    silent: bool

    @property
    def busy(self) -> bool: ...
    def is_up(self) -> bool: ...
    def break_off(self) -> None: ...


class Heartbeat:
    """Checks the health of busy servers, in a thread. If one is silent for `SILENT_SECONDS`, it is marked `silent` and
    its requests are broken off, so that they fail as those of a server that died."""

    def __init__(self, servers: Sequence[Watched]) -> None:
        self.servers = servers
        self._failing: dict[int, float] = {}
        """When a server that answers no health checks left the first of them unanswered."""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread, the first time."""
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
