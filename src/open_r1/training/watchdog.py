"""Ends a run that hangs: says which phase made no progress, dumps every thread's stack, and exits."""

import faulthandler
import os
import sys
import threading
import time

EXIT_CODE = 70


class Watchdog:
    """Every thread that does a part of a step tells it with `beat` what it is doing, again with every bit of progress.

    If one says nothing for `limit` seconds (0: no limit), the process ends with `EXIT_CODE`: an exception would not
    reach a thread that waits inside a library.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._beats: dict[int, tuple[str, float]] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, phase: str) -> None:
        """This thread is in `phase`, and it moves."""
        self._beats[threading.get_ident()] = (phase, time.monotonic())
        if self.limit and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        """This thread does nothing that could hang."""
        self._beats.pop(threading.get_ident(), None)

    def stop(self) -> None:
        """Watches no longer; `beat` watches again."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self._stopped.clear()
        self._beats.clear()

    def _watch(self) -> None:
        while not self._stopped.wait(min(self.limit / 10, 10.0)):
            now = time.monotonic()
            late = [phase for phase, last in list(self._beats.values()) if now - last > self.limit]
            if late:
                print(
                    f"\nerror: {' and '.join(late)}: no progress for {self.limit:g} s (hang_timeout), so this process "
                    "ends. What its threads were doing follows. The same command continues from the last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(2, all_threads=True)
                os._exit(EXIT_CODE)
