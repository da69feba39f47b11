"""Completions from OpenAI-compatible servers: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

Every sample is a separate request, so that a failure costs one sample and servers without `n` work, too; servers with
prefix caching prefill a shared prompt only once. Each request waits in its own thread.
"""

import json
import logging
import queue
import random
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from open_r1.engine.openai_prompts import prompt_bound
from open_r1.engine.openai_servers import Refusal, Server, Servers
from open_r1.engine.protocol import Completion, Engine, Request, Sampling
from open_r1.errors import UserError

logger = logging.getLogger(__name__)

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_PAUSE = 60.0
BROKEN = (HTTPError, OSError, ValueError, KeyError, TypeError, IndexError)
"""Errors of a failing connection or an incomplete reply."""


@dataclass(frozen=True)
class ServedCompletion(Completion):
    """A completion with the server's own token count; servers return no token ids."""

    n_tokens: int | None = None


class OpenAIEngine(Engine):
    """Talks to `<base_url>/chat/completions` (messages) and `<base_url>/completions` (token ids; vLLM takes them).

    `base_url` may name several servers of the same model, with commas between: each request goes to the least busy,
    and requests that a server fails go to another. At most `concurrency` requests run in total. Temporary failures
    (a full or restarting server, a broken connection, half a reply) are tried `tries` times with growing pauses, at
    least as long as `Retry-After` says. A request that still fails becomes a completion with
    `finish_reason` "error" and the reason as its text; servers that cannot be reached at all, or that refuse
    a request, raise `UserError`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 64,
        tries: int = 6,
        pause: float = 1.0,
        timeout: float = 3600.0,
    ) -> None:
        if concurrency < 1:
            raise UserError(f"concurrency is {concurrency}: expected at least 1.")
        self.servers, self.model = Servers(base_url, api_key, concurrency), model
        self.concurrency, self.tries, self.pause, self.timeout = concurrency, tries, pause, timeout
        self._stopping = threading.Event()

    def check(self) -> int | None:
        """Queries the models of every server; returns the context length of ours, if known. Raises `UserError`.

        Of several servers, those that do not answer yet are named in a warning and tried again later.
        """
        contexts, absent = [], []
        for server in self.servers.all:
            try:
                contexts.append(self._context(server))
            except (HTTPError, OSError) as error:
                absent.append((server, error))
                server.record_failure(suspend=True)
        if not contexts:
            raise self._unreachable(absent[0][1]) from absent[0][1]
        for server, reason in absent:
            logger.warning(
                "%s does not answer: %s. The other servers continue without it.", server.base_url, _sentence(reason)
            )
        return min((context for context in contexts if context is not None), default=None)

    def count_tokens(self, prompt: Any) -> int:
        """Tokens of a prompt, counted by the server (vLLM's `/tokenize`); elsewhere an upper bound."""
        body = {"model": self.model, **(prompt if isinstance(prompt, Mapping) else {"messages": prompt})}
        try:
            with self.servers.taken() as server:
                return int(server.read_json("tokenize", body, timeout=30.0)["count"])
        except (Refusal, *BROKEN):
            return prompt_bound(prompt)

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """As in `Engine`. Reads requests ahead only as far as `concurrency` allows."""
        samples = ((request, index) for request in requests for index in range(request.sampling.n))
        finished: queue.SimpleQueue[tuple[Request, int, Completion | BaseException]] = queue.SimpleQueue()
        parts: dict[Hashable, dict[int, Completion]] = {}
        running = 0
        self._stopping.clear()
        try:
            while True:
                while running < self.concurrency and (item := next(samples, None)) is not None:
                    self._start(*item, finished)
                    running += 1
                if not running:
                    return
                results = [finished.get()]
                while not finished.empty():
                    results.append(finished.get())
                running -= len(results)
                for request, index, result in sorted(results, key=lambda item: isinstance(item[2], BaseException)):
                    if isinstance(result, BaseException):
                        raise result
                    part = parts.setdefault(request.id, {})
                    part[index] = result
                    if len(part) == request.sampling.n:
                        del parts[request.id]
                        yield request.id, [part[i] for i in range(request.sampling.n)]
        finally:
            self._stopping.set()

    def stream_text(
        self,
        prompt: Any,
        *,
        temperature: float,
        top_p: float,
        seed: int,
        max_tokens: int | None = None,
    ) -> Iterator[tuple[str, str]]:
        """One completion as it is sampled: `("reasoning" | "content", text)`, as the server separates them.

        Without `max_tokens` the server's own limit holds, usually what the context leaves. Raises `UserError`.
        """
        sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_tokens or 0, logprobs=False)
        path, body = self._body(Request("ask", prompt, sampling), 0)
        if max_tokens is None:
            body.pop("max_tokens")
        try:
            with self.servers.taken() as server:
                for line in server.open(path, {**body, "stream": True}, self.timeout):
                    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                        continue
                    for choice in json.loads(line[5:])["choices"]:
                        delta = choice.get("delta") or {}
                        if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
                            yield "reasoning", reasoning
                        if content := delta.get("content"):
                            yield "content", content
        except Refusal as refusal:
            raise _refused(refusal) from refusal
        except BROKEN as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Stops retrying."""
        self._stopping.set()

    def _context(self, server: Server) -> int | None:
        try:
            listed = server.read_json("/models", None, timeout=30.0)["data"]
            context = {entry["id"]: entry.get("max_model_len") for entry in listed}
        except Refusal as refusal:
            if refusal.status in (401, 403):
                raise _refused(refusal) from refusal
            return None  # not every server lists its models
        except (ValueError, KeyError, TypeError):
            return None
        if context and self.model not in context:
            raise UserError(f"model is {self.model!r}, but {server.base_url} serves {', '.join(sorted(context))}.")
        return context.get(self.model)

    def _start(self, request: Request, index: int, finished: queue.SimpleQueue) -> None:
        """Runs a request in a daemon thread, so that Ctrl-C does not wait for the server."""

        def work() -> None:
            try:
                finished.put((request, index, self._complete(request, index)))
            except BaseException as error:
                finished.put((request, index, error))

        threading.Thread(target=work, name="openai", daemon=True).start()

    def _complete(self, request: Request, index: int) -> Completion:
        path, body = self._body(request, index)
        reason: Exception | None = None
        server: Server | None = None
        for attempt in range(self.tries):
            # Another server takes over a broken request without a pause.
            fails_over = isinstance(reason, HTTPError) and server is not None and self.servers.others(server)
            if attempt and not fails_over and self._stopping.wait(self._pause_before(attempt, reason)):
                break
            try:
                with self.servers.taken(avoid=server) as server:
                    completion = _completion(server.read_json(path, body, self.timeout))
            except Refusal as refusal:
                if refusal.status not in RETRIED:
                    raise _refused(refusal) from refusal
                reason = refusal
            except BROKEN as error:
                reason = error
            else:
                if self.on_tokens is not None and completion.n_tokens:
                    self.on_tokens(completion.n_tokens)
                return completion
        if isinstance(reason, NewConnectionError | ConnectTimeoutError):
            raise self._unreachable(reason, self.tries)
        return ServedCompletion(f"{self.tries} tries failed: {_sentence(reason)}", None, None, "error", 0)

    def _pause_before(self, attempt: int, reason: Exception | None) -> float:
        requested = reason.pause if isinstance(reason, Refusal) else 0.0
        growing = self.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        return min(LONGEST_PAUSE, max(growing, requested))

    def _body(self, request: Request, index: int) -> tuple[str, dict[str, Any]]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": (sampling.seed + index) % 2**31,
        }
        for name, unset in (("top_k", 0), ("min_p", 0.0)):
            if getattr(sampling, name) != unset:
                body[name] = getattr(sampling, name)
        if sampling.stop_token_ids:
            body["stop_token_ids"] = list(sampling.stop_token_ids)
        prompt: Any = request.prompt
        is_tokens = not isinstance(prompt, Mapping) and prompt and isinstance(prompt[0], int)
        if sampling.logprobs:
            body["logprobs"] = 0 if is_tokens else True
        if is_tokens:
            return "/completions", {**body, "prompt": prompt}
        return "/chat/completions", {**body, **(prompt if isinstance(prompt, Mapping) else {"messages": prompt})}

    def _unreachable(self, error: Exception, tries: int = 1) -> UserError:
        times = f" ({tries} tries)" if tries > 1 else ""
        return UserError(
            f"{self.servers} does not answer{times}: {_sentence(error)}. Check that the server runs there."
        )


def _completion(reply: dict[str, Any]) -> ServedCompletion:
    choice = reply["choices"][0]
    message = choice.get("message")
    text = (message["content"] or "") if message is not None else choice["text"]
    if message is not None and (reasoning := message.get("reasoning_content") or message.get("reasoning")):
        closed = choice.get("finish_reason") == "stop" or text
        text = f"<think>\n{reasoning}" + (f"\n</think>\n{text}" if closed else "")
    logprobs = _logprobs(choice.get("logprobs"))
    n_tokens = (reply.get("usage") or {}).get("completion_tokens")
    return ServedCompletion(
        text=text,
        token_ids=choice.get("token_ids"),
        logprobs=logprobs,
        finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        weights_version=0,
        n_tokens=n_tokens if n_tokens is not None else len(logprobs) if logprobs else None,
    )


def _logprobs(logprobs: dict[str, Any] | None) -> list[float] | None:
    """The logprobs of the sampled tokens, from either of the API's two formats."""
    if not logprobs:
        return None
    if logprobs.get("content"):
        return [entry["logprob"] for entry in logprobs["content"]]
    return logprobs.get("token_logprobs")


def _refused(refusal: Refusal) -> UserError:
    remedy = {
        401: " Set OPENAI_API_KEY.",
        403: " Set OPENAI_API_KEY.",
        404: " Check the server's URL (it usually ends in /v1) and --model.",
    }.get(refusal.status, "")
    return UserError(f"{refusal.base_url} refuses the request ({refusal.status}): {refusal.message}{remedy}")


def _sentence(error: Exception | None) -> str:
    if isinstance(error, NewConnectionError):
        return str(error.__cause__ or error)
    return str(error) if isinstance(error, Refusal) else f"{type(error).__name__} {error}".strip()
