"""Stopping in time: SIGUSR1, SIGTERM or Ctrl-C ends a run after its current step, with a checkpoint, to be continued.

Schedulers announce the end this way (Slurm: `--signal=USR1@300` before the time limit, SIGTERM at preemption). Ctrl-C
after any of these ends the run at once. Trainer's own `enable_jit_checkpoint` knows SIGTERM alone, lets each rank
decide by itself, and ends with exit status 0.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes these signals, from `listen` until `restore`, instead of dying of them.

    Only the main thread can take signals; elsewhere nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Signals are noted from now on; Ctrl-C not in a background job, for which shells have it ignored."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            taken = [number for number in STOP_SIGNALS if not (background and number == signal.SIGINT)]
            self._before = {number: signal.signal(number, self._note) for number in taken}

    def restore(self) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def ignore(self) -> None:
        """Signals do nothing any more, also after `restore`."""
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
