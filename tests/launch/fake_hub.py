"""A model hub on loopback: repositories are folders, `models/<owner>/<name>` and `datasets/<owner>/<name>`."""

import hashlib
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(http.server.ThreadingHTTPServer):
    """Serves `root` until it is closed; `requests` are the paths that were asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        super().__exit__(*error)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_POST(self) -> None:
        wanted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlparse(self.path).path).strip("/").split("/")
        self.server.requests.append(self.path)
        if "paths-info" in path and (repo := self.repo(path[1:])):
            paths = json.loads(wanted)["paths"]
            self.reply_json([f for f in listing(repo) if f["path"] in paths])
        else:
            self.reply(404)

    def answer(self, body: bool) -> None:
        self.server.requests.append(self.path)
        words = unquote(urlparse(self.path).path).strip("/").split("/")
        if words[0] == "api" and (repo := self.repo(words[1:])):
            if "tree" in words:
                self.reply_json(listing(repo))
            else:
                siblings = [{"rfilename": f["path"]} for f in listing(repo)]
                name = f"{repo.parent.name}/{repo.name}"
                self.reply_json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif "resolve" in words:
            at = words.index("resolve")
            repo = self.repo(words[:at] if words[0] == "datasets" else ["models", *words[:at]])
            file = repo and repo.joinpath(*words[at + 2 :])
            if file and file.is_file():
                self.reply(200, file.read_bytes(), body)
            else:
                self.reply(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            self.reply(404, headers={"X-Error-Code": "RepoNotFound"})

    def repo(self, words: list[str]) -> Path | None:
        folder = self.server.root.joinpath(*words[:3])
        return folder if len(words) >= 3 and folder.is_dir() else None

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode())

    def reply(
        self, status: int, content: bytes = b"", body: bool = True, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


def listing(repo: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": str(path.relative_to(repo)),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in sorted(repo.rglob("*"))
        if path.is_file()
    ]
