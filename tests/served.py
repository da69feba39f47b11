"""Pages' servers, running in threads of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from open_r1.report.serve import PageServer


@contextmanager
def served() -> Iterator[Callable[[PageServer], PageServer]]:
    """Gives a function that starts a server; all of them end with the context."""
    with ExitStack() as stack:

        def start(server: PageServer) -> PageServer:
            stack.enter_context(server)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start
