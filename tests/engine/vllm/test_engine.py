"""The engine of vLLM servers, against stand-ins that take weights through a real process group."""

import threading
import time
from contextlib import contextmanager

import pytest
import torch
from fake_vllm import SHAPE, FakeVLLM, aborted, busy, cut_off, garbage, refused, without_logprobs
from toys import make_tokenizer
from transformers import AutoTokenizer

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.vllm.engine import VLLMServerEngine
from open_r1.engine.vllm.weights import sum_of_squares
from open_r1.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("tokenizer"), pad=None))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("open_r1.engine.vllm.engine.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("open_r1.engine.vllm.servers.PAUSE_SECONDS", 0.01)


@pytest.fixture
def impatient(monkeypatch):
    """A server hangs after a second."""
    monkeypatch.setattr("open_r1.engine.vllm.servers.HEALTH_SECONDS", 0.2)
    monkeypatch.setattr("open_r1.engine.vllm.heartbeat.CHECK_SECONDS", 0.05)
    monkeypatch.setattr("open_r1.engine.vllm.heartbeat.SILENT_SECONDS", 0.5)


@pytest.fixture
def engine_of(tokenizer):
    @contextmanager
    def opened(*servers, **options):
        options = {"max_model_len": 64, "shape": SHAPE, "timeout": 0.0, "group_port": 0} | options
        engine = VLLMServerEngine(",".join(server.url for server in servers), tokenizer, **options)
        try:
            yield engine
        finally:
            engine.close()
            for server in servers:
                server.die()

    return opened


def asked(count, **sampling):
    return [Request(i, [40 + i] * (i + 1), Sampling(**sampling)) for i in range(count)]


def weights(scale=1.0):
    return [(f"layer.{i}", torch.full((3, i + 1), scale * (i + 1))) for i in range(5)]


def test_token_ids_and_logprobs_come_back_with_the_version_that_wrote_them(engine_of):
    server = FakeVLLM()
    with engine_of(server) as engine:
        found = engine.generate(asked(3, n=2, temperature=0.7, max_tokens=9, stop_token_ids=(2,), seed=5))
        engine.update_weights(weights(), 3)
        (later,) = engine.generate(asked(1))
    assert [[c.token_ids for c in group] for group in found] == [[[i + 1, 2]] * 2 for i in range(3)]
    assert (found[0][0].logprobs, found[0][0].finish_reason, found[0][0].weights_version) == ([-0.5, -0.25], "stop", 0)
    assert later[0].weights_version == 3
    sent = server.bodies[0]["sampling"]
    assert (sent["n"], sent["temperature"], sent["max_tokens"], sent["stop_token_ids"]) == (2, 0.7, 9, [2])
    assert sent["seed"] == 5


def test_without_logprobs_the_server_is_not_asked_for_them(engine_of):
    server = FakeVLLM()
    with engine_of(server) as engine:
        ((first,), _) = engine.generate(asked(2, logprobs=False))
    assert (first.token_ids, first.logprobs) == ([1, 2], None)
    assert server.bodies[0]["sampling"]["logprobs"] is None


@pytest.mark.parametrize("experts", [None, [7, -8]])
def test_experts_come_with_the_tokens_if_the_server_reports_them(engine_of, experts):
    with engine_of(FakeVLLM(experts=experts is not None)) as engine:
        assert engine.chosen_experts == (experts is not None)
        assert [c.experts for c in engine.generate(asked(1, n=2))[0]] == [experts] * 2


def test_weights_reach_every_server_in_buckets_and_caches_are_forgotten(engine_of, monkeypatch):
    monkeypatch.setattr("open_r1.engine.vllm.sender.BUCKET_BYTES", 40)
    first, second = FakeVLLM(), FakeVLLM()
    with engine_of(first, second) as engine:
        for version in (1, 2):
            engine.update_weights(weights(version), version)
        for server in (first, second):
            assert all(torch.equal(server.receiver.weights[name], tensor) for name, tensor in weights(2))
            assert (server.receiver.weights_version, server.resets) == (2, 2)
        assert engine.checksum() == sum_of_squares(tensor for _, tensor in weights(2))


def test_a_server_that_is_busy_or_answers_garbage_is_asked_again(engine_of):
    for faults in ((busy, garbage, without_logprobs), (cut_off, aborted)):
        with engine_of(FakeVLLM(*faults)) as engine:
            assert engine.generate(asked(1))[0][0].token_ids == [1, 2]
    with (
        engine_of(FakeVLLM(*[garbage] * 4)) as engine,
        pytest.raises(UserError, match=r"failed a request 4 times. The last error: JSONDecodeError"),
    ):
        engine.generate(asked(1))
    with engine_of(FakeVLLM(refused)) as engine, pytest.raises(UserError, match=r"refuses a request \(400\): no such"):
        engine.generate(asked(1))


def test_what_a_dying_server_leaves_undone_goes_to_the_other_until_it_is_back(engine_of):
    first, second = FakeVLLM(slow=30.0), FakeVLLM()
    with engine_of(first, second) as engine:
        engine.update_weights(weights(), 1)
        threading.Timer(0.3, first.die).start()
        found = engine.generate(asked(20))
        assert [c.token_ids for (c,) in found] == [[i + 1, 2] for i in range(20)]
        assert engine.servers.alive == engine.servers.all[1:]
        engine.update_weights(weights(), 2)
        assert second.receiver.weights_version == 2
        restarted = FakeVLLM(port=first.port)
        engine.update_weights(weights(), 3)
        assert engine.servers.alive == engine.servers.all
        assert restarted.receiver.weights_version == second.receiver.weights_version == 3
        restarted.die()


def test_the_last_server_that_dies_is_a_sentence(engine_of):
    server = FakeVLLM(slow=30.0)
    with engine_of(server) as engine:
        threading.Timer(0.2, server.die).start()
        with pytest.raises(UserError, match=r"left the run.*same command: it continues"):
            engine.generate(asked(3))
        with pytest.raises(UserError, match="left the run"):
            engine.update_weights(weights(), 1)


def test_a_server_that_hangs_is_left_out_and_the_last_one_is_a_sentence(engine_of, impatient):
    first, second = FakeVLLM(slow=0.5), FakeVLLM()
    with engine_of(first, second) as engine:
        threading.Timer(0.2, first.hang).start()
        found = engine.generate(asked(20))
        assert [c.token_ids for (c,) in found] == [[i + 1, 2] for i in range(20)]
        assert engine.servers.alive == engine.servers.all[1:]
        second.slow = 0.5
        threading.Timer(0.2, second.hang).start()
        with pytest.raises(UserError, match=r"left the run: it has not answered for 60 s.*same command: it continues"):
            engine.generate(asked(3))


def test_a_server_that_hangs_while_it_takes_weights_is_a_sentence(engine_of, impatient, monkeypatch):
    server = FakeVLLM()
    monkeypatch.setattr(server.receiver, "receive_bucket", lambda *_: server.hang() or server.left_the_caller())
    with (
        engine_of(server) as engine,
        pytest.raises(UserError, match=r"failed: the vLLM server .* in receive_bucket: it has not answered for 60 s"),
    ):
        engine.update_weights(weights(), 1)


def test_a_server_whose_engine_hangs_is_left_out(engine_of, monkeypatch):
    monkeypatch.setattr("open_r1.engine.vllm.engine.REPLY_SECONDS", 0.3)
    first, second = FakeVLLM(slow=30.0), FakeVLLM()
    with engine_of(first, second) as engine:
        assert [c.token_ids for (c,) in engine.generate(asked(8))] == [[i + 1, 2] for i in range(8)]
        assert engine.servers.alive == engine.servers.all[1:]
        second.slow = 30.0
        with pytest.raises(UserError, match="left the run: no reply within"):
            engine.generate(asked(1))


def test_a_busy_server_that_answers_health_checks_does_not_hang(engine_of, impatient):
    with engine_of(FakeVLLM(slow=1.5)) as engine:
        assert [c.token_ids for (c,) in engine.generate(asked(2))] == [[1, 2], [2, 2]]


def test_a_server_that_dies_between_updates_is_left_out_by_the_next(engine_of):
    first, second = FakeVLLM(), FakeVLLM()
    with engine_of(first, second) as engine:
        engine.update_weights(weights(), 1)
        first.die()
        engine.update_weights(weights(2), 2)
        assert engine.servers.alive == engine.servers.all[1:]
        assert torch.equal(second.receiver.weights["layer.3"], weights(2)[3][1])


def test_a_server_that_was_restarted_unseen_does_not_write_with_old_weights(engine_of):
    server = FakeVLLM()
    with engine_of(server) as engine:
        engine.update_weights(weights(), 4)
        server.die()
        restarted = FakeVLLM(port=server.port)
        with pytest.raises(UserError, match=r"weights of version \[0\], not 4: was it restarted"):
            engine.generate(asked(1))
        restarted.die()


def test_weights_wait_for_requests_that_are_under_way(engine_of):
    with engine_of(FakeVLLM(slow=0.5)) as engine:
        stream = engine.stream(asked(3))
        next(stream)
        stream.close()
        began = time.monotonic()
        next(engine.stream(asked(1)))
        engine.update_weights(weights(), 1)
        assert engine._running == 0 and time.monotonic() - began >= 0.4


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"logprobs_mode": "raw_logprobs"}, "start it with --logprobs-mode processed_logprobs"),
        ({"max_model_len": 32}, "need 64 tokens, but the vLLM server at .* takes 32"),
        ({"max_model_len": 129}, "more than the model's original context of 128, .*start it with --max-model-len 128"),
        ({"shape": [8, 2, 99]}, "a different model"),
        ({"route": False}, r"does not know /v1/open_r1/tokens \(404\): start it with `open-r1 vllm-serve"),
        ({"extension": False}, r"does not accept weights \(404\): start it with `open-r1 vllm-serve"),
    ],
)
def test_a_server_that_does_not_fit_is_named_before_training(engine_of, described, said):
    with pytest.raises(UserError, match=said), engine_of(FakeVLLM(**described), most=128):
        pass


def test_a_server_that_is_not_there_is_named(tokenizer):
    with pytest.raises(UserError, match=r"no vLLM server answers at http://127.0.0.1:9 after 0 s.*vllm_server_timeout"):
        VLLMServerEngine("http://127.0.0.1:9/v1", tokenizer, max_model_len=64, timeout=0.0)


def test_a_prompt_without_room_is_named(engine_of):
    with engine_of(FakeVLLM()) as engine, pytest.raises(UserError, match="request 7: its prompt has 64 tokens"):
        engine.generate([Request(7, [40] * 64, Sampling())])
