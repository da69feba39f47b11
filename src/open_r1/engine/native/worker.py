"""`python -m open_r1.engine.native.worker FD`: a native engine in its own process, the worker of `parallel.py`.

Messages are pickled tuples over the socket FD. First comes an `EngineOptions`; then `("need", tokens)`, and for each
stream `("stream",)`, requests, and `END`, or `STOP` to cancel it.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from open_r1.engine.native.engine import NOT_YET, NativeEngine
from open_r1.engine.opening import open_native
from open_r1.errors import UserError

STOP, END = ("stop",), ("end",)


class Stopped(Exception):
    """The parent has canceled a stream."""


class Inbox:
    """Messages from the parent, read by a thread, so that parent and worker never block each other when both send. Ends
    the process when the parent is gone."""

    def __init__(self, connection: Connection) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._connection = connection
        threading.Thread(target=self._read, daemon=True).start()

    def get(self, wait: bool = True) -> Any:
        """The next message. Raises `queue.Empty` if there is none and it need not `wait`."""
        return self._messages.get(block=wait)

    def _read(self) -> None:
        try:
            while True:
                self._messages.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def serve(connection: Connection) -> None:
    """Serves the parent until it is gone."""
    inbox = Inbox(connection)
    opened = open_native(inbox.get())
    engine: Any = opened.engine
    engine.on_tokens = lambda count: connection.send(("tokens", count))
    connection.send(("ready", opened.identity))
    while True:
        match inbox.get():
            case ("start", tokens, sampling):
                engine.need(tokens)
                engine.start(sampling)
                connection.send(("started", engine.loop.scheduler.slots))
            case ("stream",):
                stream(engine, inbox, connection)
                connection.send(("over", None))
            case _:
                pass  # cancels a stream that had already ended


def stream(engine: NativeEngine, inbox: Inbox, connection: Connection) -> None:
    """Samples until the end of the requests, or until the parent cancels the stream."""
    running = 0

    def requests() -> Iterator[Any]:
        nonlocal running
        ended = False
        while running or not ended:
            try:
                message = inbox.get(wait=not running)
            except queue.Empty:
                yield NOT_YET
                continue
            if message == STOP:
                raise Stopped
            if message == END:
                ended = True
            else:
                running += 1
                yield message

    try:
        for finished in engine.stream(requests()):
            running -= 1
            connection.send(("finished", finished))
    except Stopped:
        return


def main() -> None:
    """Serves the socket that the first argument names."""
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection)
    except UserError as error:
        connection.send(("failed", str(error)))
    except BaseException as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}."))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
