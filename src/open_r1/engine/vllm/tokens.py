"""A route that `open-r1 vllm-serve` adds to vLLM's server: token ids in, token ids and logprobs out, as plain bytes.

vLLM's own routes, those for tokens included, make text of every token and objects of every logprob, which costs more
than all else that a server does for a small model. Here they stay numbers, from the engine to the trainer.

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
class Written:
    """One completion, as the server tells it."""

    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: str


def pack(completions: Sequence[Written]) -> bytes:
    """The reply. Either all have logprobs or none. Raises `ValueError` if they do not match their tokens."""
    asked = any(c.logprobs is not None for c in completions)
    lengths = [len(c.token_ids) for c in completions]
    if asked and lengths != [len(c.logprobs or ()) for c in completions]:
        raise ValueError("logprobs do not match their tokens")
    reasons = [c.finish_reason for c in completions]
    head = json.dumps({"lengths": lengths, "finish_reasons": reasons, "logprobs": asked}).encode()
    parts = [head, b"\n", *(np.asarray(c.token_ids, "<i4").tobytes() for c in completions)]
    return b"".join(parts + [np.asarray(c.logprobs, "<f4").tobytes() for c in completions if asked])


def unpack(reply: bytes) -> list[Written]:
    """The completions of a reply. Raises `ValueError`, `KeyError` or `TypeError` if it is none."""
    head, _, numbers = reply.partition(b"\n")
    told = json.loads(head)
    lengths, reasons, asked = told["lengths"], told["finish_reasons"], told["logprobs"]
    total = sum(lengths)
    if len(numbers) != total * (8 if asked else 4):
        raise ValueError(f"a reply of {len(numbers)} bytes for {total} tokens")
    ids = np.frombuffer(numbers, "<i4", total).tolist()
    logprobs = np.frombuffer(numbers, "<f4", offset=4 * total).tolist() if asked else None
    completions, start = [], 0
    for length, reason in zip(lengths, reasons, strict=True):
        part = slice(start, start + length)
        completions.append(Written(ids[part], None if logprobs is None else logprobs[part], reason))
        start += length
    return completions


class TokensRoute:
    """ASGI middleware (`--middleware`) that adds the route when the server starts, and does no more: what vLLM does to
    requests and to their errors is done to these too."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes everything on."""
        if scope["type"] == "lifespan":
            scope["app"].router.add_route(f"/{ROUTE}", write, methods=["GET", "POST"])
        await self.app(scope, receive, send)


async def write(request: Any) -> Any:
    """Answers `{"prompt": token ids, "sampling": vLLM's SamplingParams}`; GET tells that the route is there."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if request.method == "GET":
        return Response()
    whole = {"detokenize": False, "flat_logprobs": True, "output_kind": RequestOutputKind.FINAL_ONLY}
    whole |= {"extra_args": {WHOLE: True}}
    try:
        asked = await request.json()
        prompt = {"type": "token", "prompt_token_ids": asked["prompt"]}
        params = SamplingParams(**asked["sampling"] | whole)
        outputs = request.app.state.engine_client.generate(prompt, params, f"open_r1-{uuid.uuid4().hex}")
        last = await _unless_closed(_last(outputs), request)
    except (KeyError, TypeError, ValueError) as error:
        raise HTTPException(400, str(error)) from error
    if last is None:
        return Response(status_code=CLOSED)
    completions = [
        Written(output.token_ids, output.logprobs and output.logprobs.logprobs, output.finish_reason)
        for output in last.outputs
    ]
    return Response(pack(completions), media_type="application/octet-stream")


async def _last(outputs: AsyncIterator[Any]) -> Any:
    """vLLM yields once, when all completions of a prompt are there."""
    return [output async for output in outputs][-1]


async def _unless_closed(work: Any, request: Any) -> Any:
    """What `work` returns; None, and its completions end, if the client leaves before."""
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
