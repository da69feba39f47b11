"""Ends a run that hangs: says which phase made no progress, dumps every thread's stack, and exits."""

import faulthandler
import os
import sys
import threading
import time

EXIT_CODE = 70


class Watchdog:
    """Watches a block of work: `with watchdog:`. Every thread in it calls `beat` with its phase whenever it makes
    progress.

    If a thread is silent for `limit` seconds (0: no limit), the process exits with `EXIT_CODE`: an exception would not
    reach a thread that waits inside a library. Outside the block nothing is watched, so saving, uploading or a user's
    own code may take any time.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._beats: dict[int, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self.limit:
            self._ended.clear()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def __exit__(self, *exception: object) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
        self._thread = None
        self._beats.clear()

    def beat(self, phase: str) -> None:
        """Reports that this thread is in `phase` and makes progress."""
        if self._thread is not None:
            self._beats[threading.get_ident()] = (phase, time.monotonic())

    def rest(self) -> None:
        """Stops watching this thread until its next `beat`."""
        self._beats.pop(threading.get_ident(), None)

    def _watch(self) -> None:
        while not self._ended.wait(min(self.limit / 10, 10.0)):
            now = time.monotonic()
            late = [phase for phase, last in list(self._beats.values()) if now - last > self.limit]
            if late:
                print(
                    f"\nerror: {' and '.join(late)}: no progress for {self.limit:g} s (hang_timeout), so this "
                    "process exits. The stacks of its threads follow. Run the same command to continue from the "
                    "last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(2, all_threads=True)
                os._exit(EXIT_CODE)
