"""A small server on the loopback address for live pages.

Its address contains a random word that only the reader of the terminal knows. So other users of the machine and other
sites in the browser cannot read from it. (The Host header is checked too, against DNS rebinding.)
"""

import gzip
import json
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from open_r1.errors import UserError
from open_r1.report.page import to_json

PORT = 8421
NAMES = ("localhost", "127.0.0.1", "[::1]")
LARGEST = 1 << 24
"""Maximum number of bytes in a request."""
Answer = Callable[[str, str], Any]


class PageServer(ThreadingHTTPServer):
    """Serves `html`, and as JSON what `answer(path, words)` gives, which raises LookupError or ValueError for other
    paths. `port` None takes `PORT`, or another if that is taken. Raises UserError."""

    daemon_threads = True
    allow_reuse_port = False

    def __init__(self, html: str, answer: Answer, port: int | None = None) -> None:
        self.html, self.answer, self.word = html, answer, secrets.token_urlsafe(16)
        self.actions: dict[str, Callable[[Any], Any]] = {}
        """What a page may have done, by path: each takes JSON, and gives pieces of text as they come."""
        self.ending = threading.Event()
        """Stops running answers, because the server stops."""
        try:
            super().__init__(("127.0.0.1", PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise UserError(
                    f"port is {port}, which cannot be used ({error.strerror}): give another one."
                ) from error
            super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores readers that disconnected; anything else is a bug."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.word}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        parts = self._path()
        if parts is None:
            return
        path, query = parts
        if path == "":
            self._send(200, self.server.html, "text/html")
            return
        try:
            value = self.server.answer(path, query.get("q", [""])[0])
        except (LookupError, ValueError, TypeError, OverflowError, OSError) as error:
            self._send(404, to_json({"error": str(error)}), "application/json")
            return
        self._send(200, to_json(value), "application/json")

    def do_POST(self) -> None:
        parts = self._path()
        if parts is None:
            return
        action, body = self.server.actions.get(parts[0]), self._body()
        if action is None or body is None:
            self._send(400, "No such request.", "text/plain")
            return
        self.send_response(200)
        self._headers("application/x-ndjson")
        self.end_headers()
        with closing(action(body)) as pieces:  # the answer is aborted if the reader disconnects
            for piece in pieces:
                self.wfile.write(to_json(piece).encode() + b"\n")
                self.wfile.flush()
                if self.server.ending.is_set():
                    return

    def _body(self) -> Any:
        length = self.headers.get("Content-Length") or ""
        if self.headers.get_content_type() != "application/json" or not length.isdecimal() or int(length) > LARGEST:
            return None
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None

    def _path(self) -> tuple[str, dict[str, list[str]]] | None:
        host = (self.headers.get("Host") or "").rpartition(":")
        name = host[0] if host[2].isdigit() else host[0] + host[1] + host[2]
        address, _, query = self.path.partition("?")
        _, word, path = [*address.split("/", 2), "", ""][:3]
        if name not in NAMES or not secrets.compare_digest(word.encode(), self.server.word.encode()):
            self._send(403, "Open the address that the command printed.", "text/plain")
            return None
        if address == f"/{word}":  # requests of the page are relative to its address
            self.send_response(301)
            self.send_header("Location", f"/{word}/")
            self.end_headers()
            return None
        return path, parse_qs(query)

    def _send(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        packed = "gzip" in (self.headers.get("Accept-Encoding") or "") and len(body) > 1000
        body = gzip.compress(body, 1) if packed else body
        self.send_response(status)
        self._headers(kind)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")

    def log_message(self, *arguments: Any) -> None:
        """Logs nothing: the terminal only shows the address."""


def serve(server: PageServer, what: str) -> None:
    """Prints the address and serves until Ctrl-C."""
    port = server.server_port
    print(f"{what}: {server.url}\nFrom another machine: ssh -L {port}:127.0.0.1:{port} HOST, then the same address.")
    print("Press Ctrl-C to stop.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.ending.set()
        server.server_close()
