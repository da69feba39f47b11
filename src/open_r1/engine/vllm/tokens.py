"""A route that `open-r1 vllm-serve` adds to vLLM's server: token ids in, token ids and logprobs out, as plain bytes.

vLLM's own routes create text for every token and an object for every logprob, which for a small model costs more than
everything else that the server does. Here they remain numbers, from the engine to the trainer.

A reply is a line of JSON, `{"lengths": [...], "finish_reasons": [...], "logprobs": true, "experts": false}`, then the
token ids of all completions as little-endian int32, their logprobs (if true) as float32, and the fingerprints of their
experts (if true) as int64.
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
"""Under `/v1`, so that vLLM's --api-key protects it."""
MIDDLEWARE = "open_r1.engine.vllm.tokens.TokensRoute"
CLOSED = 499
"""Status for a client that has disconnected, so nobody sees it."""
COLUMNS = {"logprobs": "<f4", "experts": "<i8"}
"""Optional columns, one number per token, in the order in which a reply has them."""


@dataclass(frozen=True)
class TokenOutput:
    """One completion, as the server returns it."""

    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: str
    experts: list[int] | None = None
    """As in `Completion`, if the server has `--enable-return-routed-experts`."""


def pack(completions: Sequence[TokenOutput]) -> bytes:
    """The reply. Either all completions have logprobs (or experts) or none; raises `ValueError` otherwise."""
    head: dict[str, Any] = {"lengths": [len(c.token_ids) for c in completions]}
    head["finish_reasons"] = [c.finish_reason for c in completions]
    numbers = [np.asarray(c.token_ids, "<i4").tobytes() for c in completions]
    for name, kind in COLUMNS.items():
        columns = [getattr(c, name) for c in completions]
        head[name] = any(column is not None for column in columns)
        if head[name] and head["lengths"] != [len(column or ()) for column in columns]:
            raise ValueError(f"{name} do not match the tokens")
        numbers += [np.asarray(column, kind).tobytes() for column in columns if head[name]]
    return b"".join([json.dumps(head).encode(), b"\n", *numbers])


def unpack(reply: bytes) -> list[TokenOutput]:
    """The completions of a reply. Raises `ValueError`, `KeyError` or `TypeError` if it is malformed."""
    line, _, numbers = reply.partition(b"\n")
    head = json.loads(line)
    total, start = sum(head["lengths"]), 0
    columns: dict[str, Any] = {}
    for name, kind in {"token_ids": "<i4", **COLUMNS}.items():
        if name == "token_ids" or head[name]:
            columns[name] = np.frombuffer(numbers, kind, total, start).tolist()
            start += total * np.dtype(kind).itemsize
    if len(numbers) != start:
        raise ValueError(f"a reply of {len(numbers)} bytes for {total} tokens")
    completions, first = [], 0
    for length, reason in zip(head["lengths"], head["finish_reasons"], strict=True):
        part = {name: column[first : first + length] for name, column in columns.items()}
        completions.append(TokenOutput(**{"logprobs": None, **part}, finish_reason=reason))
        first += length
    return completions


class TokensRoute:
    """ASGI middleware (`--middleware`) that only adds the route when the server starts. vLLM then handles its requests
    and errors like those of its own routes."""

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
        whole["routed_experts_prompt_start"] = max(0, len(body["prompt"]) - 1)  # the position that predicts the first
        params = SamplingParams(**body["sampling"] | whole)
        outputs = request.app.state.engine_client.generate(prompt, params, f"open_r1-{uuid.uuid4().hex}")
        result = await _unless_closed(_last(outputs), request)
    except (KeyError, TypeError, ValueError) as error:
        raise HTTPException(400, str(error)) from error
    if result is None:
        return Response(status_code=CLOSED)
    completions = [
        TokenOutput(o.token_ids, o.logprobs and o.logprobs.logprobs, o.finish_reason, _experts(o.routed_experts))
        for o in result.outputs
    ]
    return Response(pack(completions), media_type="application/octet-stream")


def _experts(routed: Any) -> list[int] | None:
    """Fingerprints of `routed (T, layers, k)`; None if the server does not report experts."""
    if routed is None:
        return None
    import torch

    from open_r1.modeling.routers import expert_fingerprints

    return expert_fingerprints(dict(enumerate(torch.from_numpy(routed.astype("i8")).unbind(1)))).tolist()


async def _last(outputs: AsyncIterator[Any]) -> Any:
    """The only output: vLLM yields once, when all completions of the prompt are finished."""
    return [output async for output in outputs][-1]


async def _unless_closed(work: Any, request: Any) -> Any:
    """The result of `work`, or None after canceling it if the client disconnects first."""
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
