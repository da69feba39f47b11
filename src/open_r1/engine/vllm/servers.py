"""The vLLM servers of a run: their properties, which of them is alive and least busy, and calls to their workers."""

import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import HTTPError

from open_r1.engine.openai_servers import Refusal, Server, split_urls
from open_r1.engine.vllm.heartbeat import SILENT_SECONDS, Heartbeat
from open_r1.engine.vllm.sender import wait_for
from open_r1.engine.vllm.tokens import MIDDLEWARE, ROUTE, TokenOutput, unpack
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

GONE = (HTTPError, OSError)
"""Errors of a failing connection."""
CALL_SECONDS = 600.0
HEALTH_SECONDS = 5.0
"""Longest wait for the answer to a health check."""
PAUSE_SECONDS = 1.0
"""Between the health checks of a server that seems to be gone."""
COMMAND = "open-r1 vllm-serve --model {model}"


@dataclass(frozen=True)
class ServerInfo:
    """Properties that all servers of a run share."""

    model: str
    """The name under which the model is served."""
    dtype: str
    device: str
    """`cuda` or `cpu`."""
    experts: bool = False
    """Whether completions include the chosen experts (`--enable-return-routed-experts`)."""


class VLLMServer(Server):
    """One server. `workers` is its number of GPUs (1 on a CPU), `running` the number of completions in progress,
    `calls` the calls of its workers' methods in progress. `silent` says whether it hangs."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        super().__init__(f"{self.url}/v1", None, connections=600)
        self.host = urllib.parse.urlsplit(self.url).hostname or ""
        self.workers = 1
        self.calls: set[_Call] = set()
        self.silent = False

    @property
    def busy(self) -> bool:
        """Whether it has a request to answer."""
        return self.running > 0 or bool(self.calls)

    def complete(self, prompt: list[int], sampling: dict[str, Any], seconds: float) -> list[TokenOutput]:
        """The completions of one prompt; `sampling` are the fields of vLLM's `SamplingParams`."""
        with self.open(ROUTE, {"prompt": prompt, "sampling": sampling}, seconds) as response:
            return unpack(response.read())

    def call(self, method: str, *arguments: Any, seconds: float = CALL_SECONDS) -> list[Any]:
        """Calls a method of every worker and returns the results."""
        body = {"method": method, "args": arguments, "timeout": seconds}
        return self.read_json("collective_rpc", body, seconds)["results"]

    def describe(self) -> list[dict[str, Any]]:
        """`describe_weights` of each worker. Raises `UserError` if the server cannot receive weights."""
        try:
            return self.call("describe_weights", seconds=60.0)
        except Refusal as refusal:
            raise UserError(
                f"the vLLM server at {self.url} does not accept weights ({refusal.status}): start it with "
                f"`{COMMAND.format(model='MODEL')}`."
            ) from refusal
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.url} does not answer as a vLLM server does: {error}") from error

    def check_route(self) -> None:
        """Raises `UserError` if the server does not have our route for tokens."""
        try:
            self.open(ROUTE, None, 30.0).drain_conn()
        except Refusal as refusal:
            raise UserError(
                f"the vLLM server at {self.url} does not know /{ROUTE} ({refusal.status}): start it with "
                f"`{COMMAND.format(model='MODEL')}`, or add --middleware {MIDDLEWARE}."
            ) from refusal

    def is_up(self) -> bool:
        """Whether the server answers and is healthy."""
        try:
            self.open("health", None, timeout=HEALTH_SECONDS).drain_conn()
        except (Refusal, *GONE):
            return False
        self.silent = False
        return True

    def trouble(self, error: Exception) -> str:
        """Why a connection failed with `error`."""
        return f"it has not answered for {SILENT_SECONDS:.0f} s" if self.silent else str(error)

    def is_back(self) -> bool:
        """`is_up`, with three attempts within a few seconds."""
        for attempt in range(3):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            if self.is_up():
                return True
        return False


class VLLMServers:
    """Hands out the server with the fewest completions of this process in progress. `rank` makes processes begin with
    different servers."""

    def __init__(self, base_url: str, rank: int = 0) -> None:
        urls = split_urls(base_url)
        if not urls:
            raise UserError(f"vllm_server_base_url is {base_url!r}: expected a URL such as http://localhost:8000.")
        self.all = [VLLMServer(url) for url in urls]
        self.alive = list(self.all)
        self.rank = rank
        self.heartbeat = Heartbeat(self.all)
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return ", ".join(server.url for server in self.all)

    def wait(self, seconds: float) -> None:
        """Waits until all servers are up. Raises `UserError` after `seconds`."""
        deadline = time.monotonic() + seconds
        while down := [server.url for server in self.all if not server.is_up()]:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no vLLM server answers at {', '.join(down)} after {seconds:.0f} s (vllm_server_timeout). Start "
                    f"one with `{COMMAND.format(model='MODEL')}`, or correct vllm_server_base_url."
                )
            time.sleep(0.5)

    def check(self, max_model_len: int, shape: Sequence[int] | None, most: int | None = None) -> ServerInfo:
        """The properties of the servers. Raises `UserError` if one does not fit the run or differs from the others.

        `max_model_len` and `most` are the least and the greatest context; above `most`, a server would compute other
        rotary embeddings. `shape` is the policy's hidden size, number of layers, and vocabulary size.
        """
        infos = []
        for server in self.all:
            workers = server.describe()
            server.workers, first = len(workers), workers[0]
            if first["logprobs_mode"] != "processed_logprobs":
                raise UserError(
                    f"the vLLM server at {server.url} has logprobs-mode {first['logprobs_mode']}, whose logprobs are "
                    "not those of the sampling distribution: start it with --logprobs-mode processed_logprobs."
                )
            if first["max_model_len"] < max_model_len:
                raise UserError(
                    f"prompt plus completion need {max_model_len:,} tokens, but the vLLM server at {server.url} takes "
                    f"{first['max_model_len']:,} (--max-model-len): start it with a larger value, or set a smaller "
                    "vllm_max_model_length, max_completion_length or benchmarks_max_new_tokens."
                )
            if most is not None and first["max_model_len"] > most:
                raise UserError(
                    f"the vLLM server at {server.url} takes {first['max_model_len']:,} tokens (--max-model-len), more "
                    f"than the model's original context of {most:,}, and so computes the rotary embeddings of long "
                    f"sequences for short ones, too: start it with --max-model-len {most}, or set "
                    f"vllm_max_model_length to {most} if the run starts it."
                )
            if shape is not None and list(shape) != first["shape"]:
                raise UserError(
                    f"the vLLM server at {server.url} serves a different model: hidden size, layers and vocabulary "
                    f"size are {first['shape']}, the policy has {list(shape)}."
                )
            server.check_route()
            model = server.read_json("/models", None, 30.0)["data"][0]["id"]
            infos.append(ServerInfo(model, first["dtype"], first["device"], first.get("experts", False)))
        if len(set(infos)) > 1:
            raise UserError(
                f"vLLM servers differ: {', '.join(map(str, infos))}; all must serve the same model with the same "
                "options."
            )
        return infos[0]

    def check_version(self, version: int) -> None:
        """Drops servers whose weights have another version, such as a restarted one. Raises `UserError` if none is
        left."""
        for server in list(self.alive) if version else ():
            try:
                if not server.is_back():
                    raise UserError("it does not answer")
                found = {worker["version"] for worker in server.describe()}
            except (*GONE, UserError) as error:
                self.drop(server, error)
                continue
            if found != {version}:
                self.drop(server, f"it has the weights of version {sorted(found)}, not {version}: was it restarted?")

    def take(self, n: int) -> VLLMServer:
        """The server for the next `n` completions. Call `give_back` when they are done."""
        self.heartbeat.start()
        with self._lock:
            if not self.alive:
                raise self.none_left()
            first = self.rank % len(self.alive)
            chosen = min(self.alive[first:] + self.alive[:first], key=lambda server: server.running)
            chosen.running += n
            return chosen

    def give_back(self, server: VLLMServer, n: int) -> None:
        """Ends the request for `n` completions, successful or not."""
        with self._lock:
            server.running -= n

    def drop(self, server: VLLMServer, reason: object) -> None:
        """Drops a server until the next weight update. Raises `UserError` if it was the last."""
        with self._lock:
            if server in self.alive:
                self.alive.remove(server)
                logger.warning("Dropped the vLLM server at %s: %s", server.url, reason)
            if not self.alive:
                raise self.none_left(f": {reason}")

    def keep(self, urls: Sequence[str]) -> None:
        """Keeps the servers at `urls` and drops the others."""
        self.alive = [server for server in self.all if server.url in urls]

    def present(self) -> list[VLLMServer]:
        """The servers that are up, including those dropped before. Raises `UserError` if there is none."""
        for server in self.all:
            if server not in self.alive and server.is_up():
                logger.warning("The vLLM server at %s is back.", server.url)
                self.alive.append(server)
            elif server in self.alive and not server.is_back():
                self.drop(server, "it does not answer")
        if not self.alive:
            raise self.none_left()
        return [server for server in self.all if server in self.alive]

    def begin_call(self, members: Sequence[VLLMServer], method: str, *arguments: Any) -> Callable[[], bool]:
        """Starts calling a method of all workers of `members`. The returned function says whether all have answered,
        and raises `UserError` if one has failed."""
        self.heartbeat.start()
        pending = [_Call(server, method, arguments) for server in members]

        def done() -> bool:
            return len([call for call in pending if call.done()]) == len(pending)

        return done

    def call_all(self, members: Sequence[VLLMServer], method: str, *arguments: Any) -> None:
        """Calls a method of all workers of `members` and waits."""
        wait_for([self.begin_call(members, method, *arguments)])

    def reset_caches(self, members: Sequence[VLLMServer]) -> None:
        """Drops the cached keys and values of `members`. Raises `UserError`."""
        for server in members:
            try:
                server.open("reset_prefix_cache", {}, CALL_SECONDS).drain_conn()
            except (Refusal, *GONE) as error:
                raise UserError(f"the vLLM server at {server.url} does not reset its prefix cache: {error}") from error

    def none_left(self, reason: str = "") -> UserError:
        """The error for a run without servers."""
        one = len(self.all) == 1
        which = f"the vLLM server at {self}" if one else f"all vLLM servers ({self})"
        return UserError(
            f"{which} left the run{reason}. Restart {'it' if one else 'them'}, then run the same command: it continues "
            "from the last checkpoint."
        )


class _Call:
    """A call in its own thread."""

    def __init__(self, server: VLLMServer, method: str, arguments: Sequence[Any]) -> None:
        self.error: UserError | None = None

        def work() -> None:
            try:
                server.call(method, *arguments)
            except Refusal as refusal:
                self.error = UserError(f"the vLLM server at {server.url} failed in {method}: {refusal.message}")
            except (*GONE, ValueError, KeyError) as error:
                self.error = UserError(f"the vLLM server at {server.url} failed in {method}: {server.trouble(error)}.")
            finally:
                server.calls.discard(self)

        server.calls.add(self)
        self.thread = threading.Thread(target=work, name=f"vllm-{method}", daemon=True)
        self.thread.start()

    def done(self) -> bool:
        if self.thread.is_alive():
            return False
        if self.error is not None:
            raise self.error
        return True
