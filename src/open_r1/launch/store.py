"""PyTorch's `TCPStore`, asked so that a lost host is an error after a while: its own calls can wait for ever."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from datetime import timedelta
from typing import Any

CONNECT_SLACK = 5.0


class Lost(Exception):
    """The node that holds the store does not answer."""


class Store:
    """Every call runs in a thread of its own and raises `Lost` if it fails or takes more than `patience` seconds.

    Node 0 (`is_master`) holds the store; the others wait `timeout` seconds for it.
    """

    def __init__(self, host: str, port: int, is_master: bool, timeout: float, patience: float) -> None:
        from torch.distributed import TCPStore

        self.patience = timeout + CONNECT_SLACK
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="store", daemon=True).start()
        self._store: Any = self._do(
            lambda: TCPStore(
                host, port, is_master=is_master, timeout=timedelta(seconds=timeout), wait_for_workers=False
            )
        )
        self.patience = patience
        self._do(lambda: self._store.set_timeout(timedelta(seconds=patience)))

    def set(self, key: str, value: str) -> None:
        """Writes a value."""
        self._do(lambda: self._store.set(key, value))

    def get(self, key: str) -> str:
        """A value, waited for."""
        return self._do(lambda: self._store.get(key)).decode()

    def has(self, key: str) -> bool:
        """Whether it has been written."""
        return self._do(lambda: self._store.check([key]))

    def add(self, key: str, amount: int) -> int:
        """A number, after adding to it."""
        return self._do(lambda: self._store.add(key, amount))

    def set_first(self, key: str, value: str) -> str:
        """Writes a value unless there is one; returns what is there."""
        return self._do(lambda: self._store.compare_set(key, "", value)).decode()

    def _do(self, call: Callable[[], Any]) -> Any:
        future: Future = Future()
        self._calls.put((call, future))
        try:
            return future.result(self.patience)
        except (RuntimeError, TimeoutError) as error:  # torch's network and store errors are RuntimeErrors
            raise Lost(str(error)) from error

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
