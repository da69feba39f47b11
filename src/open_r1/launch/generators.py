"""Servers that generate beside training: started here, and waited for until they answer."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.errors import UserError
from open_r1.launch.commands import Command
from open_r1.processes import Part

POLL_SECONDS = 0.2
REPORT_SECONDS = 15.0
"""Between lines that say what is being waited for."""


@dataclass(frozen=True)
class Generator:
    """A server to start on this node."""

    name: str
    command: Command
    url: str
    log: Path

    def start(self) -> Part:
        """Starts it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{self.name}: starting; its log is {self.log}.", flush=True)
        return Part(self.name, self.command.argv, self.command.environment, self.log)


class GeneratorLate(UserError):
    """A server did not answer in time."""

    def __init__(self, server: Generator, seconds: float) -> None:
        self.server = server
        self.reason = f"did not answer at {server.url} within {seconds:g} s (vllm_server_timeout)"
        super().__init__(f"{server.name} {self.reason}; its log is {server.log}.")


def wait_until_answering(servers: Sequence[Generator], seconds: float) -> Iterator[None]:
    """Ends when all servers answer. Yields before each poll, so that the caller can check on its processes. Raises
    `GeneratorLate`."""
    began = reported = time.monotonic()
    waiting = list(servers)
    while waiting:
        yield
        waiting = [server for server in waiting if not answers(server.url)]
        now = time.monotonic()
        if waiting and now - began > seconds:
            raise GeneratorLate(waiting[0], seconds)
        if waiting and now - reported > REPORT_SECONDS:
            reported = now
            print(f"Waiting for {', '.join(s.name for s in waiting)}: {now - began:.0f} s.", flush=True)
        time.sleep(POLL_SECONDS if waiting else 0)
    if servers:
        which = f"{servers[0].name} is" if len(servers) == 1 else f"{len(servers)} generators are"
        print(f"{which} up after {time.monotonic() - began:.0f} s.", flush=True)


def answers(url: str) -> bool:
    """Whether a server is up and well."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2.0) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False
