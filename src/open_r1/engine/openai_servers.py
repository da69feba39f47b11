"""OpenAI-compatible servers: connections that are kept open, and which of several servers gets the next request.

A request goes to the server with the least under way. A server whose connections fail several times in a row rests,
longer each time, and is asked whether it is back before it gets requests again.
"""

import json
import os
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from open_r1.errors import UserError

CONNECT_SECONDS = 10.0
FAILURES = 3
"""Connections in a row that fail before a server is left alone for a while."""
LONGEST_REST = 60.0


class Refusal(Exception):
    """The server answered with an error status; `said` is its own explanation, `pause` the seconds it asks for."""

    def __init__(self, status: int, reason: str, said: str, pause: float) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.said, self.pause = status, said, pause


class Server:
    """One server, such as http://localhost:8000/v1. Safe to use from threads."""

    def __init__(self, base_url: str, api_key: str | None, connections: int) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url is {base_url!r}: expected a URL such as http://localhost:8000/v1.")
        self.base_url = base_url.rstrip("/")
        self.under_way = self.failures = 0
        self.resting = False
        self._wakes = self._rest = 0.0
        self._headers = {"Content-Type": "application/json", "User-Agent": "open-r1"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        options: dict[str, Any] = {
            "maxsize": connections,
            "retries": False,
            "socket_options": [*urllib3.connection.HTTPConnection.default_socket_options, *_keepalive()],
        }
        proxy = _proxy(self.base_url)
        self._pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def open(self, path: str, body: dict[str, Any] | None, timeout: float) -> urllib3.BaseHTTPResponse:
        """The reply, to be read whole or line by line. Raises `Refusal` for an error status, else what urllib3 does."""
        address = self.base_url + path if path.startswith("/") else urllib.parse.urljoin(self.base_url, "/" + path)
        response = self._pool.request(
            "GET" if body is None else "POST",
            address,
            body=None if body is None else json.dumps(body).encode(),
            headers=self._headers,
            timeout=Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
            preload_content=False,
        )
        if response.status >= 400:
            with response:
                asked = response.headers.get("Retry-After", "")
                said = _said(response.read(), response.reason or "no reason given")
            raise Refusal(response.status, response.reason or "", said, float(asked) if asked.isdigit() else 0.0)
        return response

    def read_json(self, path: str, body: dict[str, Any] | None, timeout: float) -> Any:
        """The reply as JSON. Raises `ValueError` if it is none."""
        with self.open(path, body, timeout) as response:
            return json.loads(response.read())

    def answered(self) -> None:
        """It is there, whatever it said."""
        self.failures, self.resting, self._rest = 0, False, 0.0

    def failed(self, at_once: bool = False) -> None:
        """A connection failed: after `FAILURES` in a row (or `at_once`) it rests."""
        self.failures += 1
        if self.failures >= FAILURES or at_once:
            self.resting = True
            self._rest = min(LONGEST_REST, max(1.0, 2 * self._rest))
            self._wakes = time.monotonic() + self._rest

    def rested(self) -> bool:
        """Has it rested long enough to be asked again?"""
        return self.resting and time.monotonic() >= self._wakes

    def is_back(self) -> bool:
        """Asks a server that has rested."""
        try:
            self.open("/models", None, timeout=5.0).drain_conn()
        except Refusal as refusal:
            return refusal.status < 500
        except (HTTPError, OSError):
            return False
        return True


class Servers:
    """Hands out servers, the one with the least under way first."""

    def __init__(self, base_url: str, api_key: str | None, connections: int) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        urls = list(dict.fromkeys(url.strip() for url in base_url.split(",") if url.strip())) or [base_url]
        self.all = [Server(url, key, connections) for url in urls]
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return ", ".join(server.base_url for server in self.all)

    def take(self, avoid: Server | None = None) -> Server:
        """The next server to ask: not `avoid`, and none that rests, if there is another. `give_back` must follow."""
        self._wake_one()
        with self._lock:
            chosen = min(self.all, key=lambda server: (server.resting, server is avoid, server.under_way))
            chosen.under_way += 1
            return chosen

    def give_back(self, server: Server, answered: bool) -> None:
        """The request to `server` is over; did it answer?"""
        with self._lock:
            server.under_way -= 1
            if answered:
                server.answered()
            elif not server.resting:  # what fails while it rests was sent before
                server.failed()

    def others(self, server: Server) -> Sequence[Server]:
        """Servers that could do the work of `server` at once."""
        return [other for other in self.all if other is not server and not other.resting]

    def _wake_one(self) -> None:
        """One thread asks a server that has rested; the others go on without it."""
        with self._lock:
            rested = next((server for server in self.all if server.rested()), None)
            if rested is None:
                return
            rested.failed(at_once=True)  # rests on while it is asked
        if rested.is_back():
            with self._lock:
                rested.answered()


def _proxy(base_url: str) -> str | None:
    parts = urllib.parse.urlsplit(base_url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _keepalive() -> list[tuple[int, int, int]]:
    """A machine that vanished is noticed within two minutes, however long an answer may take."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _said(content: bytes, reason: str) -> str:
    """The server's own words, whatever form they take."""
    text = content.decode(errors="replace").strip()
    try:
        body = json.loads(text)
        inner = body.get("error", body)
        text = str(inner.get("message") or inner.get("detail") or text) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    return (" ".join(text.split())[:300] or reason).rstrip(".") + "."
