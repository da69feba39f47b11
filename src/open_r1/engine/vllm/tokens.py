"""A route that `open-r1 vllm-serve` adds to vLLM's server: token ids in, token ids and logprobs out, as plain bytes.

vLLM's own routes, those for tokens included, create text for every token and objects for every logprob, which costs
more than everything else that a server does for a small model. Here they stay numbers, from the engine to the trainer.

A reply is a line of JSON, `{"lengths": [...], "finish_reasons": [...], "logprobs": true}`, then the token ids of all
completions as little-endian int32, then their logprobs, if there are any, as float32.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from open_r1.engine.vllm.scheduler import WHOLE

ROUTE = "v1/open_r1/tokens"
"""Below `/v1`, where vLLM asks for its --api-key, if it has one."""
MIDDLEWARE = "open_r1.engine.vllm.tokens.TokensRoute"
CLOSED = 499
"""Status of a request whose client left. Nobody reads it."""


@dataclass(frozen=True)
class TokenOutput:
    """One completion, as the server returns it."""

    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: str


def pack(completions: Sequence[TokenOutput]) -> bytes:
    """The reply. Either all have logprobs or none. Raises `ValueError` if they do not match their tokens."""
    with_logprobs = any(c.logprobs is not None for c in completions)
    lengths = [len(c.token_ids) for c in completions]
    if with_logprobs and lengths != [len(c.logprobs or ()) for c in completions]:
        raise ValueError("logprobs do not match their tokens")
    reasons = [c.finish_reason for c in completions]
    head = json.dumps({"lengths": lengths, "finish_reasons": reasons, "logprobs": with_logprobs}).encode()
    parts = [head, b"\n", *(np.asarray(c.token_ids, "<i4").tobytes() for c in completions)]
    return b"".join(parts + [np.asarray(c.logprobs, "<f4").tobytes() for c in completions if with_logprobs])


def unpack(reply: bytes) -> list[TokenOutput]:
    """The completions of a reply. Raises `ValueError`, `KeyError` or `TypeError` if it is malformed."""
    head, _, numbers = reply.partition(b"\n")
    fields = json.loads(head)
    lengths, reasons, with_logprobs = fields["lengths"], fields["finish_reasons"], fields["logprobs"]
    total = sum(lengths)
    if len(numbers) != total * (8 if with_logprobs else 4):
        raise ValueError(f"a reply of {len(numbers)} bytes for {total} tokens")
    ids = np.frombuffer(numbers, "<i4", total).tolist()
    logprobs = np.frombuffer(numbers, "<f4", offset=4 * total).tolist() if with_logprobs else None
    completions, start = [], 0
    for length, reason in zip(lengths, reasons, strict=True):
        part = slice(start, start + length)
        completions.append(TokenOutput(ids[part], None if logprobs is None else logprobs[part], reason))
        start += length
    return completions


class TokensRoute:
    """ASGI middleware (`--middleware`) that only adds the route when the server starts: vLLM treats these requests and
    their errors like all others."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forwards everything to the app."""
        if scope["type"] == "lifespan":
            scope["app"].router.add_route(f"/{ROUTE}", complete, methods=["GET", "POST"])
        await self.app(scope, receive, send)


async def complete(request: Any) -> Any:
    """Answers `{"prompt": token ids, "sampling": vLLM's SamplingParams}`; GET confirms that the route exists."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if request.method == "GET":
        return Response()
    whole = {"detokenize": False, "flat_logprobs": True, "output_kind": RequestOutputKind.FINAL_ONLY}
    whole |= {"extra_args": {WHOLE: True}}
    try:
        body = await request.json()
        prompt = {"type": "token", "prompt_token_ids": body["prompt"]}
        params = SamplingParams(**body["sampling"] | whole)
        outputs = request.app.state.engine_client.generate(prompt, params, f"open_r1-{uuid.uuid4().hex}")
        result = await _unless_closed(_last(outputs), request)
    except (KeyError, TypeError, ValueError) as error:
        raise HTTPException(400, str(error)) from error
    if result is None:
        return Response(status_code=CLOSED)
    completions = [
        TokenOutput(output.token_ids, output.logprobs and output.logprobs.logprobs, output.finish_reason)
        for output in result.outputs
    ]
    return Response(pack(completions), media_type="application/octet-stream")


async def _last(outputs: AsyncIterator[Any]) -> Any:
    """vLLM yields once, when all completions of a prompt are complete."""
    return [output async for output in outputs][-1]


async def _unless_closed(work: Any, request: Any) -> Any:
    """The result of `work`; None, with the work canceled, if the client disconnects first."""
    working = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(_closed(request))
    await asyncio.wait((working, closed), return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait((working,))
    return None


async def _closed(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
