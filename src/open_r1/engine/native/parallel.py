"""Native engines on several GPUs, each in its own process; this process distributes the requests."""

import logging
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Hashable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Completion, Engine, Request, Sampling
from open_r1.errors import UserError
from open_r1.processes.child import child_environment, describe_exit, new_log

logger = logging.getLogger(__name__)

SILENT_SECONDS = 900.0
"""An engine that sends nothing for this long, not even the number of new tokens, counts as hanging."""


class Worker:
    """An engine's process, on one GPU as CUDA_VISIBLE_DEVICES names it (empty: a share of the CPU)."""

    def __init__(self, options: EngineOptions, device: str, threads: int) -> None:
        self.place = f"GPU {device}" if device else "the CPU"
        self.log = new_log("open_r1-engine-")
        ours, theirs = socket.socketpair()
        variables = {"CUDA_VISIBLE_DEVICES": device} | ({} if device else {"OMP_NUM_THREADS": str(threads)})
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "open_r1.engine.native.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent; the worker ends when the socket closes
                env=child_environment() | variables,
            )
        theirs.close()
        self.connection = Connection(ours.detach())
        weakref.finalize(self, self.process.kill)
        self.send(options)

    def send(self, message: Any) -> None:
        """Raises `UserError` if the worker has exited."""
        try:
            self.connection.send(message)
        except OSError:
            raise self.died() from None

    def read(self) -> tuple[str, Any]:
        """The next message. Raises `UserError` if the worker failed or has exited."""
        try:
            name, value = self.connection.recv()
        except (EOFError, OSError):
            raise self.died() from None
        if name == "failed":
            raise UserError(f"the native engine on {self.place}: {value}")
        return name, value

    def receive(self, name: str) -> Any:
        """The value of the next message called `name`; earlier messages are dropped."""
        while True:
            found, value = self.read()
            if found == name:
                return value

    def died(self) -> UserError:
        """The error for a worker that has ended."""
        return UserError(
            f"the native engine on {self.place} ended with {describe_exit(self.process.wait())}; its log is {self.log}."
        )

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


class ParallelEngine(Engine):
    """One native engine on each of `devices` (empty names: on the CPU); they load the model at the same time.

    `identity` is that of a single engine. `max_model_len`, of prompt and completion together, may grow.
    """

    def __init__(self, options: EngineOptions, devices: Sequence[str]) -> None:
        self.options = options
        self.max_model_len = 1
        self._started = False
        self._slots = 0
        threads = max(1, (os.cpu_count() or 1) // len(devices))
        logger.warning("%d native engines, one on each %s.", len(devices), "GPU" if devices[0] else "share of the CPU")
        self.workers = [Worker(options, device, threads) for device in devices]
        try:
            (self.identity, *_) = [worker.receive("ready") for worker in self.workers]
        except BaseException:
            self.close()
            raise

    def need(self, tokens: int) -> None:
        """Makes room for `tokens` tokens of prompt plus completion."""
        if tokens > self.max_model_len:
            self.max_model_len, self._started = tokens, False

    def start(self, sampling: Sampling | None = None) -> None:
        """Makes all engines allocate their memory and capture their graphs for `sampling`."""
        if not self._started:
            for worker in self.workers:
                worker.send(("start", self.max_model_len, sampling))
            self._slots = min([worker.receive("started") for worker in self.workers])
            self._started = True

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`.

        A request goes to the least busy engine. As many wait there as it decodes at once, like in an engine of this
        process, so that it always finds enough to admit; the others go to whichever is free, so that all engines finish
        together.
        """
        self.start()
        room = 2 * self._slots
        load = dict.fromkeys(self.workers, 0)
        sizes: dict[Hashable, int] = {}
        waiting: Iterator[Request] | None = iter(requests)
        over: set[Worker] = set()
        for worker in self.workers:
            worker.send(("stream",))
        try:
            while len(over) < len(self.workers):
                while waiting is not None and min(load.values()) < room:
                    request = next(waiting, None)
                    if request is None:
                        waiting = None
                        for worker in self.workers:
                            worker.send(("end",))
                        break
                    worker = min(self.workers, key=load.__getitem__)
                    worker.send(request)
                    sizes[request.id] = request.sampling.n
                    load[worker] += request.sampling.n
                for worker in self._with_messages(over):
                    name, value = worker.read()
                    if name == "over":
                        over.add(worker)
                    elif name == "finished":
                        load[worker] -= sizes.pop(value[0])
                        yield value
                    elif self.on_tokens is not None:
                        self.on_tokens(value)
        except UserError:
            self.close()
            raise
        finally:
            for worker in set(self.workers) - over:
                worker.send(("stop",))
            for worker in set(self.workers) - over:
                worker.receive("over")

    def close(self) -> None:
        """Ends the engines."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def _with_messages(self, over: set[Worker]) -> list[Worker]:
        """Workers that have sent a message. Raises `UserError` if all are silent for too long."""
        by_connection = {worker.connection: worker for worker in self.workers if worker not in over}
        ready = wait(by_connection, SILENT_SECONDS)  # type: ignore[arg-type]
        if not ready:
            silent = " and ".join(f"{worker.place} (its log is {worker.log})" for worker in by_connection.values())
            raise UserError(f"the native engine hangs: nothing for {SILENT_SECONDS:.0f} s from {silent}.")
        return [by_connection[connection] for connection in ready]  # type: ignore[index]
