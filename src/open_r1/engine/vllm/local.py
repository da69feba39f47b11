"""vLLM servers on this machine that start and end with a command."""

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from open_r1.engine.protocol import Completion, Engine, Request, Sampling
from open_r1.engine.vllm.addresses import any_free_port
from open_r1.engine.vllm.engine import VLLMServerEngine
from open_r1.engine.vllm.installed import version_of_vllm
from open_r1.engine.vllm.process import ServerOptions, ServerProcess, is_up, start_servers, vllm_server
from open_r1.errors import UserError
from open_r1.processes.child import stop_all

logger = logging.getLogger(__name__)

START_SECONDS = 1800.0
END_SECONDS = 10.0
"""How long to wait until a server that no longer answers has ended."""


class LocalServers(Engine):
    """One server with `options` on loopback for each group of GPUs (an empty group: the CPU). They start with the first
    request or `start`, and end with `close` or this process.

    `need` may raise `max_model_len` (prompt plus completion, in tokens), which restarts the servers.
    """

    def __init__(
        self, options: ServerOptions, groups: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.options, self.groups, self.tokenizer = options, groups, tokenizer
        self.max_model_len = 1
        self.processes: list[ServerProcess] = []
        self._engine: VLLMServerEngine | None = None

    def start(self, sampling: Sampling | None = None) -> None:
        """Starts all servers at once, if they have not started. Raises `UserError`."""
        if self._engine is not None:
            return
        places = " and ".join("GPU " + ",".join(group) if group else "the CPU" for group in self.groups)
        logger.warning(
            "Starting vLLM %s on %s; the first start compiles kernels and takes minutes.", version_of_vllm(), places
        )
        seeds = [(self.options.seed + i) % 2**31 for i in range(len(self.groups))]
        options = [
            replace(self.options, port=any_free_port(), max_model_len=self.max_model_len, seed=seed) for seed in seeds
        ]
        commands = [vllm_server(option, group) for option, group in zip(options, self.groups, strict=True)]
        self.processes = start_servers(commands, START_SECONDS, logger.warning)
        urls = ",".join(process.url for process in self.processes)
        try:
            self._engine = VLLMServerEngine(urls, self.tokenizer, max_model_len=self.max_model_len)
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> VLLMServerEngine:
        """The engine that talks to the servers. Starts them if they have not started."""
        self.start()
        assert self._engine is not None
        return self._engine

    def need(self, tokens: int) -> None:
        """Makes room for `tokens` tokens of prompt plus completion."""
        if tokens > self.max_model_len:
            self.max_model_len = tokens
            self.close()

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`. Raises `UserError`, with the end of the log, if a server ends."""
        engine = self.engine
        engine.on_tokens = self.on_tokens
        try:
            yield from engine.stream(requests)
        except UserError:
            for process in self.processes:
                if not is_up(process.url):
                    process.wait(END_SECONDS)
                    process.check_alive()
                    raise UserError(f"{process.name} hangs.\n{process.end_of_log()}") from None
            raise

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """As in `Engine`."""
        self.engine.update_weights(named_tensors, version)

    def close(self) -> None:
        """Ends the servers."""
        if self._engine is not None:
            self._engine.close()
        stop_all(self.processes)
        self._engine, self.processes = None, []
