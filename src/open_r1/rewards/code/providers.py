"""Runs programs in a sandbox on this machine, on Piston servers, or in E2B, through one interface."""

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any, Protocol

from open_r1.errors import UserError
from open_r1.rewards.code import sandbox
from open_r1.rewards.code.choose import trusted_isolation
from open_r1.rewards.code.local import CompileError, LocalProvider
from open_r1.rewards.code.piston_workers import slurm_endpoints
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.sandbox import Limits, Outcome

Run = Callable[[str], Outcome]
NO_ANSWER = (OSError, http.client.HTTPException, json.JSONDecodeError)
"""Of a server: no connection, one that is reset, too late, too little, or not JSON."""


class Provider(Protocol):
    """Runs programs."""

    @property
    def languages(self) -> frozenset[str] | None:
        """The languages that it runs; None if only the server knows."""
        ...

    def open(self, program: Program, limits: Limits) -> AbstractContextManager[Run]:
        """A context with a function from stdin to outcome. Both may raise `CompileError`."""
        ...


class PistonProvider:
    """Piston servers (github.com/engineer-man/piston), used in turn. `endpoints` are their URLs, separated by commas,
    or `slurm`: the running workers, which are looked up again when one does not answer."""

    languages: frozenset[str] | None = None

    def __init__(self, endpoints: str) -> None:
        self._slurm = endpoints == "slurm"
        self._lock = threading.Lock()
        self._requests = 0
        self._endpoints = slurm_endpoints() if self._slurm else [e.rstrip("/") for e in endpoints.split(",") if e]
        if not self._endpoints:
            raise UserError(
                "PISTON_ENDPOINTS is not set: set it to the addresses of Piston servers, separated by commas "
                "(http://host:2000/api/v2), or set the provider to 'local'."
            )

    @contextmanager
    def open(self, program: Program, limits: Limits) -> Iterator[Run]:
        yield lambda stdin: self._run(program, limits, stdin)

    def _run(self, program: Program, limits: Limits, stdin: str) -> Outcome:
        reply = self.execute(
            {
                "language": "c++" if program.language == "cpp" else program.language,
                "version": "*",
                "files": [{"name": name, "content": text} for name, text in program.files.items()],
                "stdin": stdin,
                "run_timeout": round(limits.seconds * 1000),
                "run_memory_limit": limits.memory_mb << 20,
            }
        )
        if reply.get("compile", {}).get("code"):
            raise CompileError(reply["compile"].get("stderr", ""))
        result = reply["run"]
        status: sandbox.Status = "ok" if result.get("code") == 0 else "error"
        if result.get("signal") == "SIGKILL":
            status = "time"
        return Outcome(status, result.get("stdout", ""), result.get("code"))

    def execute(self, request: dict, attempts: int = 4) -> dict:
        """Sends a request to the next server, and tries others if it fails. Raises `UserError` after `attempts`."""
        for attempt in range(attempts):
            with self._lock:
                endpoint = self._endpoints[self._requests % len(self._endpoints)]
                self._requests += 1
            try:
                reply = _post(f"{endpoint}/execute", request)
                if "Resource temporarily unavailable" in str(reply.get("run", {}).get("stderr", "")):
                    raise urllib.error.URLError("the server is overloaded")
                if "message" in reply:
                    raise UserError(f"code rewards: Piston at {endpoint} says: {reply['message']}")
                return reply
            except NO_ANSWER as error:
                if attempt == attempts - 1:
                    raise UserError(f"code rewards: no answer from Piston at {endpoint}: {error}.") from error
                time.sleep(0.2 * 2**attempt)
                if self._slurm:
                    with suppress(UserError):
                        self._endpoints = slurm_endpoints()
        raise AssertionError("unreachable")


def piston() -> PistonProvider:
    """The provider for `PISTON_ENDPOINTS`. All calls share it, so that servers are used in turn."""
    return _piston(os.environ.get("PISTON_ENDPOINTS", ""))


_piston = cache(PistonProvider)


_E2B_SCRIPT = """
import json, os, subprocess, tempfile
os.chdir(tempfile.mkdtemp())
for name, text in {files}.items():
    open(name, "w").write(text)
reply = {{"status": "ok", "stdout": "", "code": None}}
try:
    for command, limit in {commands}:
        last = subprocess.run(command, input={stdin}, text=True, capture_output=True, timeout=limit)
        reply.update(stdout=last.stdout[:{cap}], code=last.returncode)
        if last.returncode:
            reply["status"] = "compile" if command[0] == "g++" else "error"
            break
except subprocess.TimeoutExpired:
    reply["status"] = "time"
print(json.dumps(reply))
"""


class E2BProvider:
    """E2B cloud sandboxes, through a router (`e2b_router_url`, host:port) or the SDK with `E2B_API_KEY`."""

    languages: frozenset[str] | None = frozenset({"python", "cpp"})

    def __init__(self, router_url: str | None = None) -> None:
        self.router_url = router_url
        if router_url is None:
            try:
                import e2b_code_interpreter  # noqa: F401
            except ImportError:
                raise UserError(
                    "code_provider is 'e2b', which needs e2b_router_url or the SDK: pip install e2b-code-interpreter."
                ) from None

    @contextmanager
    def open(self, program: Program, limits: Limits) -> Iterator[Run]:
        yield lambda stdin: self._run(program, limits, stdin)

    def _run(self, program: Program, limits: Limits, stdin: str) -> Outcome:
        commands: list[tuple[list[str], float]] = [(["python3", "main.py"], limits.seconds)]
        if program.language == "cpp":
            sources = [name for name in program.files if name.endswith(".cpp")]
            commands = [(["g++", "-O2", "-std=c++17", *sources, "-o", "program"], 30), (["./program"], limits.seconds)]
        script = _E2B_SCRIPT.format(
            files=repr(program.files), commands=repr(commands), stdin=repr(stdin), cap=limits.output_bytes
        )
        reply = json.loads(self._execute(script, limits.seconds + 40).strip().splitlines()[-1])
        if reply["status"] == "compile":
            raise CompileError(reply["stdout"])
        return Outcome(reply["status"], reply["stdout"], reply["code"])

    def _execute(self, script: str, seconds: float) -> str:
        if self.router_url is not None:
            request = {"scripts": [script], "languages": ["python"], "timeout": seconds, "request_timeout": seconds}
            try:
                result = _post(f"http://{self.router_url.removeprefix('http://')}/execute_batch", request)[0]
            except NO_ANSWER as error:
                raise UserError(f"code rewards: no answer from the E2B router {self.router_url}: {error}.") from error
            if not result.get("execution"):
                raise UserError(f"code rewards: the E2B router says: {result.get('exception_str')}")
            return "".join(result["execution"]["logs"]["stdout"])
        from e2b_code_interpreter import Sandbox

        with Sandbox.create(timeout=int(seconds) + 30) as box:
            return "".join(box.run_code(script, timeout=seconds).logs.stdout)


def _post(url: str, body: dict) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def get_provider(name: str, e2b_router_url: str | None = None) -> Provider:
    """The provider `local`, `unsafe` (`local`, but if necessary with resource limits only), `piston` or `e2b`."""
    if name in ("local", "unsafe"):
        return LocalProvider(trusted_isolation(name == "unsafe"))
    if name == "piston":
        return piston()
    if name == "e2b":
        return E2BProvider(e2b_router_url)
    raise UserError(f"code_provider is {name!r}: it must be 'local', 'unsafe', 'piston' or 'e2b'.")
