"""Completions from any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

Every sample is a request of its own, so that a failure costs one sample, and servers without `n` work too; servers
with prefix caching prefill a shared prompt once. Threads do the waiting: a request is minutes of somebody else's work.
"""

import http.client
import json
import os
import random
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from open_r1.engine.protocol import Completion, Message, Request, Sampling
from open_r1.errors import UserError

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class ServedCompletion(Completion):
    """A completion with the server's own count of its tokens, which come without ids."""

    n_tokens: int | None = None


class OpenAIEngine:
    """Talks to `<base_url>/chat/completions` (messages) and `<base_url>/completions` (token ids; vLLM takes them).

    At most `concurrency` requests are under way. What can pass by itself (a full or restarting server, a broken
    connection, half a reply) is tried `tries` times with growing pauses, at least as long as `Retry-After` says.
    A request that still fails becomes a completion with `finish_reason` "error" and the reason as its text; a
    server that cannot be reached at all, or refuses what it is asked, raises `UserError`. `logprobs` asks for
    those of the sampled tokens.
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
        logprobs: bool = False,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url is {base_url!r}: expected a URL such as http://localhost:8000/v1.")
        if concurrency < 1:
            raise UserError(f"concurrency is {concurrency}: expected at least 1.")
        self.base_url, self.model = base_url.rstrip("/"), model
        self.concurrency, self.tries, self.pause, self.timeout = concurrency, tries, pause, timeout
        self.logprobs, self.on_tokens = logprobs, on_tokens
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY")
        self._stopping = threading.Event()
        here = urllib.parse.urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))

    def check(self) -> int | None:
        """Asks for the list of models: the context length of ours, if the server tells. Raises `UserError`."""
        try:
            listed = json.loads(self._open("/models", None, timeout=30).read())["data"]
            context = {entry["id"]: entry.get("max_model_len") for entry in listed}
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise self._refused(error) from error
            return None  # not every server lists its models
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError):
            return None
        if context and self.model not in context:
            raise UserError(f"model is {self.model!r}, but {self.base_url} serves {', '.join(sorted(context))}.")
        return context.get(self.model)

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Hashable, list[Completion]]]:
        """Yields `(request.id, completions)` as requests finish; reads ahead only as far as `concurrency`."""
        waiting = ((request, index) for request in requests for index in range(request.sampling.n))
        running: dict[Future[Completion], tuple[Request, int]] = {}
        parts: dict[Hashable, dict[int, Completion]] = {}
        self._stopping.clear()
        try:
            while True:
                while len(running) < self.concurrency and (item := next(waiting, None)) is not None:
                    running[self._start(*item)] = item
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
                for future in sorted(done, key=lambda future: future.exception() is not None):  # failures last
                    request, index = running.pop(future)
                    part = parts.setdefault(request.id, {})
                    part[index] = future.result()
                    if len(part) == request.sampling.n:
                        yield request.id, [parts[request.id][i] for i in range(request.sampling.n)]
                        del parts[request.id]
        finally:
            self._stopping.set()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`stream`, collected in the order of `requests` (whose ids must be distinct)."""
        finished = dict(self.stream(requests))
        return [finished[r.id] for r in requests]

    def stream_text(
        self,
        messages: list[Message],
        *,
        temperature: float,
        top_p: float,
        seed: int,
        max_tokens: int | None = None,
    ) -> Iterator[tuple[str, str]]:
        """One completion as it is written: `("reasoning" | "content", text)`, as the server tells them apart.

        Without `max_tokens` the server's own limit holds, usually what the context leaves. Raises `UserError`.
        """
        sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_tokens or 0)
        path, body = self._body(Request("ask", messages, sampling), 0)
        if max_tokens is None:
            body.pop("max_tokens")
        try:
            for line in self._open(path, {**body, "stream": True}, self.timeout):
                if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                    continue
                for choice in json.loads(line[5:])["choices"]:
                    delta = choice.get("delta") or {}
                    if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
                        yield "reasoning", reasoning
                    if content := delta.get("content"):
                        yield "content", content
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise self._unreachable(error) from error

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Not possible: the server's weights are its own."""
        raise UserError("an OpenAI-compatible server cannot be given new weights: train with another engine.")

    def sleep(self) -> None:
        """The server's memory is its own."""

    def wake(self) -> None:
        """The server's memory is its own."""

    def close(self) -> None:
        """Stops retrying."""
        self._stopping.set()

    def _start(self, request: Request, index: int) -> Future[Completion]:
        """A thread that does not keep the process alive: Ctrl-C need not wait for the server."""
        future: Future[Completion] = Future()

        def work() -> None:
            try:
                future.set_result(self._complete(request, index))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="openai", daemon=True).start()
        return future

    def _complete(self, request: Request, index: int) -> Completion:
        path, body = self._body(request, index)
        reason: Exception | None = None
        for attempt in range(self.tries):
            if attempt and self._stopping.wait(self._pause_before(attempt, reason)):
                break
            try:
                reply = json.loads(self._open(path, body, self.timeout).read())
                completion = _completion(reply)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED:
                    raise self._refused(error) from error
                reason = error
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, IndexError) as error:
                reason = error
            else:
                if self.on_tokens is not None and completion.n_tokens:
                    self.on_tokens(completion.n_tokens)
                return completion
        if isinstance(reason, urllib.error.URLError) and not isinstance(reason, urllib.error.HTTPError):
            raise self._unreachable(reason, self.tries)
        return ServedCompletion(f"{self.tries} tries failed: {_sentence(reason)}", None, None, "error", 0)

    def _pause_before(self, attempt: int, reason: Exception | None) -> float:
        asked = reason.headers.get("Retry-After", "") if isinstance(reason, urllib.error.HTTPError) else ""
        grown = self.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        return min(LONGEST_PAUSE, max(grown, float(asked) if asked.isdigit() else 0.0))

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
        if prompt and isinstance(prompt[0], int):
            return "/completions", {**body, "prompt": prompt, **({"logprobs": 0} if self.logprobs else {})}
        return "/chat/completions", {**body, "messages": prompt, **({"logprobs": True} if self.logprobs else {})}

    def _open(self, path: str, body: dict[str, Any] | None, timeout: float) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "open-r1"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        data = None if body is None else json.dumps(body).encode()
        return self._opener.open(urllib.request.Request(self.base_url + path, data, headers), timeout=timeout)

    def _unreachable(self, error: Exception, tries: int = 1) -> UserError:
        times = f" ({tries} tries)" if tries > 1 else ""
        return UserError(f"{self.base_url} does not answer{times}: {_sentence(error)}; is the server running there?")

    def _refused(self, error: urllib.error.HTTPError) -> UserError:
        said = _said(error)
        remedy = {
            401: " Set OPENAI_API_KEY.",
            403: " Set OPENAI_API_KEY.",
            404: " Check --base-url (it usually ends in /v1) and --model.",
        }.get(error.code, "")
        return UserError(f"{self.base_url} refuses the request ({error.code}): {said}{remedy}")


def prompt_bound(messages: Sequence[Any]) -> int:
    """At least as many tokens as the chat template makes of `messages`: a token has a byte or more of text."""
    return 64 + sum(len(message["content"].encode()) + 32 for message in messages)


def _completion(reply: dict[str, Any]) -> ServedCompletion:
    choice = reply["choices"][0]
    message = choice.get("message")
    text = (message["content"] or "") if message is not None else choice["text"]
    if message is not None and (reasoning := message.get("reasoning_content") or message.get("reasoning")):
        closed = choice.get("finish_reason") == "stop" or text
        text = f"<think>\n{reasoning}" + (f"\n</think>\n{text}" if closed else "")
    logprobs = _logprobs(choice.get("logprobs"))
    counted = (reply.get("usage") or {}).get("completion_tokens")
    return ServedCompletion(
        text=text,
        token_ids=choice.get("token_ids"),
        logprobs=logprobs,
        finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        weights_version=0,
        n_tokens=counted if counted is not None else len(logprobs) if logprobs else None,
    )


def _logprobs(given: dict[str, Any] | None) -> list[float] | None:
    """Of the sampled tokens, in either of the two forms that the API has."""
    if not given:
        return None
    if given.get("content"):
        return [entry["logprob"] for entry in given["content"]]
    return given.get("token_logprobs")


def _said(error: urllib.error.HTTPError) -> str:
    """The server's own words, whatever form they take."""
    text = error.read().decode(errors="replace").strip()
    try:
        body = json.loads(text)
        inner = body.get("error", body)
        text = str(inner.get("message") or inner.get("detail") or text) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split())[:300]
    return (text or str(error.reason)).rstrip(".") + "."


def _sentence(error: Exception | None) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return f"{type(error).__name__} {error}".strip()
