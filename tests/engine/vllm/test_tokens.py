"""What a vLLM server and the trainer say to each other: the bytes of a reply, and what becomes of requests whose
client leaves. The route itself runs in a real server: test_server.py."""

import asyncio
from types import SimpleNamespace

import pytest

from open_r1.engine.vllm.tokens import ROUTE, TokenOutput, TokensRoute, _last, _unless_closed, pack, unpack


@pytest.mark.parametrize(
    "completions",
    [
        [TokenOutput([5, 151_935, 0], [-0.5, -0.25, 0.0], "stop"), TokenOutput([7], [-12.625], "length")],
        [TokenOutput([5, 6], None, "stop"), TokenOutput([10], None, "abort")],  # 10 is a line feed
        [TokenOutput([], [], "length"), TokenOutput([1], [-1.0], "stop")],
        [TokenOutput([5, 6], [-0.5, -1.0], "stop", [-(2**62), 3]), TokenOutput([7], [-2.0], "length", [0])],
        [TokenOutput([5], None, "stop", [2**62])],
    ],
)
def test_a_reply_brings_back_what_went_in(completions):
    assert unpack(pack(completions)) == completions


def test_logprobs_keep_the_precision_of_the_engine():
    (found,) = unpack(pack([TokenOutput([1], [-5.423236846923828], "stop")]))
    assert found.logprobs == [-5.423236846923828]


def test_experts_that_do_not_match_their_tokens_are_not_sent():
    with pytest.raises(ValueError, match="experts do not match"):
        pack([TokenOutput([1, 2], None, "stop", [9])])


def test_logprobs_that_do_not_match_their_tokens_are_not_sent():
    for logprobs in ([-1.0], None):
        with pytest.raises(ValueError, match="do not match"):
            pack([TokenOutput([1, 2], logprobs, "stop"), TokenOutput([1], [-1.0], "stop")])


@pytest.mark.parametrize(
    "damage", [lambda r: r[:-1], lambda r: r + b"\0\0\0\0", lambda r: b"<html>", lambda r: b"{}\n"]
)
def test_what_is_no_reply_is_not_read(damage):
    with pytest.raises((ValueError, KeyError)):
        unpack(damage(pack([TokenOutput([1, 2], [-1.0, -2.0], "stop")])))


def test_the_route_is_added_when_the_server_starts_and_requests_pass_through():
    added, passed = [], []
    router = SimpleNamespace(add_route=lambda path, endpoint, methods: added.append(path))

    async def app(scope, receive, send):
        passed.append(scope["type"])

    middleware = TokensRoute(app)
    for kind in ("lifespan", "http", "websocket"):
        asyncio.run(middleware({"type": kind, "app": SimpleNamespace(router=router)}, None, None))
    assert (added, passed) == ([f"/{ROUTE}"], ["lifespan", "http", "websocket"])


class Engine:
    """Yields once after `seconds`, and knows whether it was stopped before."""

    def __init__(self, seconds):
        self.seconds, self.stopped = seconds, False

    async def generate(self):
        try:
            await asyncio.sleep(self.seconds)
            yield "completions"
        except asyncio.CancelledError:
            self.stopped = True
            raise


@pytest.mark.parametrize("leaves", [False, True])
def test_completions_whose_client_leaves_are_stopped(leaves):
    engine = Engine(30.0 if leaves else 0.0)

    async def receive():
        await asyncio.sleep(0.01 if leaves else 30.0)
        return {"type": "http.disconnect"}

    async def run():
        return await _unless_closed(_last(engine.generate()), SimpleNamespace(receive=receive))

    assert asyncio.run(run()) == (None if leaves else "completions")
    assert engine.stopped == leaves


def test_what_the_engine_raises_is_raised():
    async def fails():
        raise ValueError("too long")
        yield

    async def run():
        await _unless_closed(_last(fails()), SimpleNamespace(receive=asyncio.Event().wait))

    with pytest.raises(ValueError, match="too long"):
        asyncio.run(run())
