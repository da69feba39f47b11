"""Graceful stop: after SIGUSR1, SIGTERM or Ctrl-C, the run finishes its step, saves a checkpoint and exits.

Schedulers send these signals (Slurm: `--signal=USR1@300` before the time limit, SIGTERM at preemption). Ctrl-C after
any of them stops the run at once. Trainer's own `enable_jit_checkpoint` handles only SIGTERM, lets each rank decide on
its own, and exits with status 0.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Records these signals from `listen` until `restore`, so that they do not kill the process.

    Only the main thread can receive signals; in other threads nothing is recorded.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Starts recording signals. In a background job, shells ignore Ctrl-C, so it stays ignored."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            taken = [number for number in STOP_SIGNALS if not (background and number == signal.SIGINT)]
            self._before = {number: signal.signal(number, self._note) for number in taken}

    def restore(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def ignore(self) -> None:
        """Ignores signals from now on, even after `restore`."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked helper: its parent ends it, with SIGTERM
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.received is not None and number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt
        if self.received is None:
            name = signal.Signals(number).name
            os.write(
                2,
                f"\n{name}: the run finishes its step, saves a checkpoint and exits. "
                "Press Ctrl-C again to exit at once without one.\n".encode(),
            )
        self.received = signal.Signals(number)
