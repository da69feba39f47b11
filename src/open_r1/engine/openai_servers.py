"""OpenAI-compatible servers: pooled connections, and which of several servers gets the next request.

A request goes to the least busy server. A server whose connections fail several times in a row is suspended, longer
each time, and probed before it gets requests again.
"""

import json
import os
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from open_r1.errors import UserError

CONNECT_SECONDS = 10.0
FAILURES = 3
"""Connections that fail in a row before a server is suspended."""
LONGEST_SUSPENSION = 60.0


class Refusal(Exception):
    """The server at `base_url` answered with an error status; `message` is its explanation, `pause` the seconds of its
    `Retry-After`."""

    def __init__(self, base_url: str, status: int, reason: str, message: str, pause: float) -> None:
        super().__init__(f"{status} {reason}")
        self.base_url, self.status, self.message, self.pause = base_url, status, message, pause


class Server:
    """One server, such as http://localhost:8000/v1. Safe to use from threads."""

    def __init__(self, base_url: str, api_key: str | None, connections: int) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url is {base_url!r}: expected a URL such as http://localhost:8000/v1.")
        self.base_url = base_url.rstrip("/")
        self.running = self.failures = 0
        self.suspended = False
        self._probe_time = self._suspension = 0.0
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
        self._connections: WeakSet[Any] = WeakSet()
        self._pool.pool_classes_by_scheme = {
            scheme: _recorded(pool, self._connections) for scheme, pool in self._pool.pool_classes_by_scheme.items()
        }

    def open(self, path: str, body: dict[str, Any] | None, timeout: float) -> urllib3.BaseHTTPResponse:
        """The response, to be read whole or line by line. Raises `Refusal` for an error status, and urllib3's
        errors."""
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
                pause = response.headers.get("Retry-After", "")
                reason = response.reason or ""
                message = _error_message(response.read(), reason or "no reason given")
            raise Refusal(self.base_url, response.status, reason, message, float(pause) if pause.isdigit() else 0.0)
        return response

    def read_json(self, path: str, body: dict[str, Any] | None, timeout: float) -> Any:
        """The reply as JSON. Raises `ValueError` if it is not JSON."""
        with self.open(path, body, timeout) as response:
            return json.loads(response.read())

    def break_off(self) -> None:
        """Closes every connection: requests in progress fail at once, as if the server had died."""
        for connection in list(self._connections):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def record_success(self) -> None:
        """Records that a request was answered, with any status."""
        self.failures, self.suspended, self._suspension = 0, False, 0.0

    def record_failure(self, suspend: bool = False) -> None:
        """Records that a connection failed. Suspends the server after `FAILURES` in a row, or with `suspend`."""
        self.failures += 1
        if self.failures >= FAILURES or suspend:
            self.suspended = True
            self._suspension = min(LONGEST_SUSPENSION, max(1.0, 2 * self._suspension))
            self._probe_time = time.monotonic() + self._suspension

    def due_for_probe(self) -> bool:
        """Whether its suspension is over."""
        return self.suspended and time.monotonic() >= self._probe_time

    def is_back(self) -> bool:
        """Probes a suspended server."""
        try:
            self.open("/models", None, timeout=5.0).drain_conn()
        except Refusal as refusal:
            return refusal.status < 500
        except (HTTPError, OSError):
            return False
        return True


class Servers:
    """Hands out servers, the least busy one first."""

    def __init__(self, base_url: str, api_key: str | None, connections: int) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        self.all = [Server(url, key, connections) for url in split_urls(base_url) or [base_url]]
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return ", ".join(server.base_url for server in self.all)

    @contextmanager
    def taken(self, avoid: Server | None = None) -> Iterator[Server]:
        """A context with the server for a request; not `avoid` or a suspended one, if there is another. A connection
        that fails counts against the server."""
        self._probe_one()
        with self._lock:
            server = min(self.all, key=lambda server: (server.suspended, server is avoid, server.running))
            server.running += 1
        answered = True
        try:
            yield server
        except (HTTPError, OSError):
            answered = False
            raise
        finally:
            with self._lock:
                server.running -= 1
                if answered:
                    server.record_success()
                elif not server.suspended:  # otherwise the request was sent before the suspension
                    server.record_failure()

    def others(self, server: Server) -> Sequence[Server]:
        """Other servers that could take over from `server` now."""
        return [other for other in self.all if other is not server and not other.suspended]

    def _probe_one(self) -> None:
        """Probes a server whose suspension is over, in one thread; the others continue without the server."""
        with self._lock:
            due = next((server for server in self.all if server.due_for_probe()), None)
            if due is None:
                return
            due.record_failure(suspend=True)  # stays suspended during the probe
        if due.is_back():
            with self._lock:
                due.record_success()


def _recorded(pool: Any, connections: WeakSet[Any]) -> Any:
    """A class of connection pools that adds its open connections to `connections`."""

    class Connection(pool.ConnectionCls):
        def connect(self) -> None:
            super().connect()
            connections.add(self)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def split_urls(text: str) -> list[str]:
    """The distinct URLs in `text`, which separates them by commas."""
    return list(dict.fromkeys(url.strip() for url in text.split(",") if url.strip()))


def _proxy(base_url: str) -> str | None:
    parts = urllib.parse.urlsplit(base_url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _keepalive() -> list[tuple[int, int, int]]:
    """Keepalive options that detect a lost machine within two minutes, however long a reply may take."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _error_message(content: bytes, reason: str) -> str:
    """The error message in the body of a reply, in whatever format."""
    text = content.decode(errors="replace").strip()
    try:
        body = json.loads(text)
        inner = body.get("error", body)
        text = str(inner.get("message") or inner.get("detail") or text) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    return (" ".join(text.split())[:300] or reason).rstrip(".") + "."
