"""Completions from `vllm serve` processes on other GPUs or hosts, which receive new weights during training.

Each prompt is one request, for all of its completions, to the least busy server. Requests of a failing server move to
the others. Weights travel through a process group (`group.py`); HTTP only coordinates.
"""

import itertools
import logging
import queue
import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from urllib3.exceptions import ReadTimeoutError

from open_r1.engine.openai_servers import Refusal
from open_r1.engine.protocol import Completion, Engine, Request, prompt_ids
from open_r1.engine.vllm.addresses import address_towards, listen
from open_r1.engine.vllm.group import GroupPlace
from open_r1.engine.vllm.sender import GroupSender, wait_for
from open_r1.engine.vllm.servers import GONE, VLLMServer, VLLMServers
from open_r1.engine.vllm.tokens import TokenOutput
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

RETRIED = {408, 425, 429, 500, 502, 503, 504}
TRIES = 4
PAUSE_SECONDS = 1.0
REPLY_SECONDS = 3600.0
"""Timeout for the completions of one prompt."""
UPDATE_SECONDS = 300.0
"""Timeout for one bucket of weights, and for opening a group."""
MOST_THREADS = 512
READ_AHEAD = 2048
"""Maximum number of completions in progress per server."""


class VLLMServerEngine(Engine):
    """An engine for the servers at `base_url` (several: separated by commas).

    The constructor waits up to `timeout` seconds for them. It raises `UserError` if they do not answer, or do not fit
    the run: they must accept weights, return processed logprobs, and have a context of at least `max_model_len` tokens
    (prompt plus completion) and at most `most`; `shape` is as in `VLLMServers.check`. `group_port` is the port on this
    host to which they connect for weights.
    """

    def __init__(
        self,
        base_url: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_model_len: int,
        shape: Sequence[int] | None = None,
        most: int | None = None,
        timeout: float = 240.0,
        group_port: int = 51216,
    ) -> None:
        self.tokenizer, self.max_model_len, self.group_port = tokenizer, max_model_len, group_port
        self.version = 0
        self.servers = VLLMServers(base_url, PartialState().process_index)
        self.servers.wait(timeout)
        self.info = self.servers.check(max_model_len, shape, most)
        self.chosen_experts = self.info.experts
        self._sender: GroupSender | None = None
        self._members: list[VLLMServer] = []
        self._groups = 0
        self._running = 0
        self._idle = threading.Condition()
        self._stopping = threading.Event()

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`. Has up to `READ_AHEAD` completions per server in progress."""
        self.servers.check_version(self.version)
        waiting = iter(requests)
        finished: queue.SimpleQueue[tuple[Request, list[Completion] | BaseException]] = queue.SimpleQueue()
        threads = completions = 0
        stopping = self._stopping = threading.Event()
        try:
            while True:
                room = READ_AHEAD * len(self.servers.alive)
                while threads < MOST_THREADS and completions < room and (request := next(waiting, None)) is not None:
                    self._start(request, self._parameters(request), finished, stopping)
                    threads += 1
                    completions += request.sampling.n
                if not threads:
                    return
                request, result = finished.get()
                threads -= 1
                completions -= request.sampling.n
                if isinstance(result, BaseException):
                    raise result
                if self.on_tokens is not None:
                    self.on_tokens(sum(len(c.token_ids or ()) for c in result))
                yield request.id, result
        finally:
            stopping.set()

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sends the policy's weights to all servers and resets their caches, once no process has a request in progress.

        Process 0 sends, in buckets. Servers that are back rejoin; servers that are gone are dropped. Raises `UserError`
        in all processes if no server is left.
        """
        state = PartialState()
        self._wait_until_idle()
        state.wait_for_everyone()
        tensors = iter(named_tensors)
        failure: list[Any] = [None, None]
        if state.is_main_process:
            try:
                self._send(tensors, version)
            except UserError as error:
                failure[0] = str(error)
            failure[1] = [server.url for server in self.servers.alive]
        for _ in tensors:  # gathering is collective, so every process must finish it even if sending failed
            pass
        broadcast_object_list(failure)
        if failure[0] is not None:
            raise UserError(failure[0])
        self.servers.keep(failure[1])
        self.version = version

    def checksum(self) -> float:
        """Sum of squares of the weights of the first server's first worker."""
        return float(self.servers.alive[0].call("weights_checksum", seconds=UPDATE_SECONDS)[0]["checksum"])

    def close(self) -> None:
        """Stops retrying and disconnects from the servers, which keep running."""
        self._stopping.set()
        for server in self._members:
            with suppress(Refusal, ValueError, KeyError, *GONE):
                server.call("leave_group", seconds=5.0)
        self._leave_group()
        self.servers.heartbeat.close()

    # Requests

    def _parameters(self, request: Request) -> tuple[list[int], dict[str, Any]]:
        """The prompt's token ids, and vLLM's sampling parameters."""
        prompt = prompt_ids(request, self.tokenizer)
        sampling = request.sampling
        limit = min(sampling.max_tokens, self.max_model_len - len(prompt))
        if limit < 1:
            raise UserError(
                f"request {request.id}: its prompt has {len(prompt):,} tokens, but prompt plus completion may have "
                f"only {self.max_model_len:,} (vllm_max_model_length)."
            )
        return prompt, {
            "n": sampling.n if sampling.temperature > 0 else 1,  # greedy completions are equal
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_tokens": limit,
            "stop_token_ids": list(sampling.stop_token_ids),
            # On GPUs, a random generator per request costs more than decoding. Every server accepts 31 bits.
            "seed": sampling.seed % 2**31 if self.info.device == "cpu" else None,
            "ignore_eos": True,
            "detokenize": False,
            "logprobs": 0 if sampling.logprobs else None,
        }

    def _start(
        self,
        request: Request,
        parameters: tuple[list[int], dict[str, Any]],
        finished: queue.SimpleQueue,
        stopping: threading.Event,
    ) -> None:
        with self._idle:
            self._running += 1

        def work() -> None:
            try:
                finished.put((request, self._complete(request, *parameters, stopping)))
            except BaseException as error:
                finished.put((request, error))
            finally:
                with self._idle:
                    self._running -= 1
                    self._idle.notify_all()

        threading.Thread(target=work, name="vllm-server", daemon=True).start()

    def _complete(
        self, request: Request, prompt: list[int], sampling: dict[str, Any], stopping: threading.Event
    ) -> list[Completion]:
        version, n = self.version, request.sampling.n
        reason: Exception | None = None
        tries = 0
        while tries < TRIES and not (tries and stopping.wait(PAUSE_SECONDS * 2 ** (tries - 1))):
            server = self.servers.take(n)
            try:
                outputs = server.complete(prompt, sampling, REPLY_SECONDS)
                return self._completions(outputs, sampling, version) * (n // sampling["n"])
            except Refusal as refusal:
                if refusal.status not in RETRIED:
                    raise UserError(
                        f"the vLLM server at {server.url} refuses a request ({refusal.status}): {refusal.message}"
                    ) from refusal
                reason, tries = refusal, tries + 1
            except GONE as error:
                reason, tries = error, tries + 1
                if isinstance(error, ReadTimeoutError):  # its health checks succeed: only its engine hangs
                    self.servers.drop(server, f"no reply within {REPLY_SECONDS:.0f} s")
                elif not server.is_back():
                    self.servers.drop(server, server.trouble(error))
                    tries -= 1  # another server starts over
            except (ValueError, KeyError, TypeError, IndexError) as error:
                reason, tries = error, tries + 1
            finally:
                self.servers.give_back(server, n)
        last = reason.message if isinstance(reason, Refusal) else f"{type(reason).__name__}: {reason}"
        raise UserError(f"vLLM servers ({self.servers}) failed a request {tries} times. The last error: {last}")

    def _completions(self, outputs: list[TokenOutput], sampling: dict[str, Any], version: int) -> list[Completion]:
        with_logprobs = sampling["logprobs"] is not None
        complete = all(o.token_ids and (o.logprobs is not None) == with_logprobs for o in outputs)
        if len(outputs) != sampling["n"] or not complete:
            raise ValueError(f"{len(outputs)} completions of {sampling['n']}, or no tokens or logprobs in one of them")
        reasons: list[Any] = [o.finish_reason for o in outputs]
        if not set(reasons) <= {"stop", "length"}:
            raise ValueError(f"finish reasons {sorted(set(map(str, reasons)))}")
        shown = [o.token_ids[:-1] if o.finish_reason == "stop" else o.token_ids for o in outputs]
        texts = self.tokenizer.batch_decode(shown, skip_special_tokens=True)
        return [
            Completion(text, o.token_ids, o.logprobs, reason, version, o.experts)
            for text, o, reason in zip(texts, outputs, reasons, strict=True)
        ]

    # Weights

    def _wait_until_idle(self) -> None:
        """Waits for requests that an abandoned stream has left running."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._running == 0, timeout=REPLY_SECONDS):
                raise UserError(f"vLLM servers ({self.servers}) are still generating after {REPLY_SECONDS:.0f} s.")

    def _send(self, tensors: Iterator[tuple[str, Tensor]], version: int) -> None:
        first = next(tensors)
        members = self._meet(first[1].device)
        assert self._sender is not None
        dtype = getattr(torch, self.info.dtype)
        try:
            self._sender.send(itertools.chain([first], tensors), dtype, partial(self.servers.begin_call, members))
            self.servers.call_all(members, "end_weights", version)
            self.servers.reset_caches(members)
        except (UserError, RuntimeError) as error:
            self._leave_group()
            raise UserError(
                f"sending weights to the vLLM servers ({self.servers}) failed: {error} Restart them, then run the same "
                "command: it continues from the last checkpoint."
            ) from error

    def _meet(self, device: torch.device) -> list[VLLMServer]:
        """The servers that are up, after joining them in a group with this process."""
        while True:
            members = self.servers.present()
            if self._sender is not None and members == self._members:
                return members
            try:
                self._open_group(members, device)
            except (UserError, RuntimeError) as error:
                self._leave_group()
                if self.servers.present() == members:
                    raise UserError(
                        f"this process and the vLLM servers ({self.servers}) cannot connect: {error}"
                    ) from error

    def _open_group(self, members: list[VLLMServer], device: torch.device) -> None:
        self._leave_group()
        started = time.monotonic()
        nccl = device.type == "cuda" and self.info.device == "cuda"
        hosts = [server.host for server in members]
        outside = [host for host in hosts if not address_towards(host).startswith("127.")]
        address = address_towards((outside or hosts)[0])
        listener = listen(address, self.group_port)
        self._groups += 1
        size = 1 + sum(server.workers for server in members)
        port, name = listener.getsockname()[1], f"weights-{self._groups}"
        place = {"address": address, "port": port, "size": size, "backend": "nccl" if nccl else "gloo"}
        place |= {"name": name, "seconds": UPDATE_SECONDS}
        rank, waits = 1, []
        for server in members:
            waits.append(self.servers.begin_call([server], "join_group", place | {"rank": rank}))
            rank += server.workers
        self._sender = GroupSender(GroupPlace(rank=0, **place), listener, device)  # type: ignore[arg-type]
        wait_for(waits)
        self._members = members
        logger.warning(
            "Sending weights to %d vLLM server(s) over %s, port %d of %s (connected in %.1f s).",
            len(members),
            place["backend"],
            port,
            address,
            time.monotonic() - started,
        )

    def _leave_group(self) -> None:
        if self._sender is not None:
            self._sender.close()
        self._sender, self._members = None, []
