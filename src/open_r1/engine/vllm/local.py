"""vLLM servers on this machine's GPUs, for a command that writes and ends."""

import logging
import socket
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from open_r1.engine.protocol import Completion, Engine, Request
from open_r1.engine.vllm.engine import VLLMServerEngine
from open_r1.engine.vllm.installed import version_of_vllm
from open_r1.engine.vllm.process import ServerOptions, ServerProcess
from open_r1.errors import UserError

logger = logging.getLogger(__name__)


class LocalServers(Engine):
    """A server with `options` on loopback for each of `groups` of GPUs (an empty one: the CPU). They start with the
    first request, or with `start`, and end with `close`, or with this process.

    `max_model_len`, of prompt and completion together, may grow, which starts the servers anew.
    """

    def __init__(
        self, options: ServerOptions, groups: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.options, self.groups, self.tokenizer = options, groups, tokenizer
        self.max_model_len = 1
        self.processes: list[ServerProcess] = []
        self._engine: VLLMServerEngine | None = None
        self._started = ExitStack()

    def start(self) -> None:
        """Starts the servers, all at once. Raises `UserError`."""
        if self._engine is not None:
            return
        began = time.monotonic()
        places = " and ".join("GPU " + ",".join(group) if group else "the CPU" for group in self.groups)
        logger.warning(
            "Starting vLLM %s on %s; the first start compiles kernels and takes minutes.", version_of_vllm(), places
        )
        try:
            self._engine = self._open()
        except BaseException:
            self.close()
            raise
        logger.warning("vLLM is ready after %.0f s.", time.monotonic() - began)

    @property
    def engine(self) -> VLLMServerEngine:
        """The engine that talks to the servers; starts them if they have not started."""
        self.start()
        assert self._engine is not None
        return self._engine

    def _open(self) -> VLLMServerEngine:
        for i, group in enumerate(self.groups):
            seed = (self.options.seed + i) % 2**31
            options = replace(self.options, port=_free_port(), max_model_len=self.max_model_len, seed=seed)
            self.processes.append(ServerProcess(options, group))
            self._started.callback(self.processes[-1].close)
        for process in self.processes:
            process.wait()
        urls = ",".join(process.url for process in self.processes)
        engine = VLLMServerEngine(urls, self.tokenizer, max_model_len=self.max_model_len)
        self._started.callback(engine.close)
        return engine

    def need(self, tokens: int) -> None:
        """Makes room for prompts and completions of `tokens` together."""
        if tokens > self.max_model_len:
            self.max_model_len = tokens
            self.close()

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish. Raises `UserError` if a server ends."""
        engine = self.engine
        engine.on_tokens = self.on_tokens
        try:
            yield from engine.stream(requests)
        except UserError:
            if dead := next((process for process in self.processes if process.part.poll() is not None), None):
                raise dead.died() from None
            raise

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sends weights to all servers."""
        self.engine.update_weights(named_tensors, version)

    def close(self) -> None:
        """Ends the servers."""
        self._started.close()
        self._engine, self.processes = None, []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
