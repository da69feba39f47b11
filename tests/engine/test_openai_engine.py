"""The client of OpenAI-compatible servers, against a small server that misbehaves on demand."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from fake_openai import broken_json, fake_server, hang_up, status

from open_r1.engine.openai_engine import OpenAIEngine, prompt_bound
from open_r1.engine.protocol import Request, Sampling
from open_r1.errors import UserError


@contextmanager
def serving(*script, slow=0.0, **options):
    with fake_server(*script, slow=slow) as server:
        yield server, OpenAIEngine(server.url, "m", **{"pause": 0.01, **options})


def ask(*questions, **sampling):
    return [Request(i, [{"role": "user", "content": q}], Sampling(**sampling)) for i, q in enumerate(questions)]


def test_questions_are_answered_and_the_sampling_is_sent():
    with serving(api_key="sesame") as (server, engine):
        assert engine.check() == 4096
        found = engine.generate(ask("a", "b", n=2, temperature=0.6, top_p=0.95, max_tokens=9, seed=5))
    assert [[c.text for c in group] for group in found] == [["re: a"] * 2, ["re: b"] * 2]
    assert found[0][0].n_tokens == 7
    sent = [b for b in server.bodies if b["messages"][-1]["content"] == "a"]
    assert sorted(b["seed"] for b in sent) == [5, 6]
    assert {(b["model"], b["temperature"], b["top_p"], b["max_tokens"]) for b in sent} == {("m", 0.6, 0.95, 9)}
    assert "top_k" not in sent[0]
    assert server.headers[0]["Authorization"] == "Bearer sesame"


def test_samples_stand_in_the_order_of_their_seeds_whichever_finishes_first():
    def the_first_last(handler):
        seed = handler.body["seed"]
        time.sleep(0.3 if seed == 5 else 0)
        handler.reply(200, {"choices": [{"message": {"content": f"seed {seed}"}, "finish_reason": "stop"}]})

    with serving(the_first_last, the_first_last, concurrency=2) as (_, engine):
        (group,) = engine.generate(ask("a", n=2, seed=5))
    assert [completion.text for completion in group] == ["seed 5", "seed 6"]


def test_token_ids_go_to_completions():
    with serving() as (_, engine):
        ((completion,),) = engine.generate([Request("x", [1, 2, 3], Sampling())])
    assert (completion.text, completion.finish_reason) == ("3 tokens", "length")


def test_a_server_that_is_busy_broken_or_gone_for_a_moment_is_asked_again():
    faults = [status(429, **{"Retry-After": "0"}), status(500), broken_json, hang_up, status(503)]
    with serving(*faults) as (server, engine):
        found = engine.generate(ask("a"))
    assert found[0][0].text == "re: a"
    assert len(server.bodies) == 6


def test_retry_after_is_respected():
    with serving(status(429, **{"Retry-After": "1"})) as (_, engine):
        started = time.monotonic()
        engine.generate(ask("a"))
    assert time.monotonic() - started >= 1


def test_a_request_that_fails_every_time_is_an_error_and_the_others_go_on():
    with serving(*[status(500)] * 3, tries=3, concurrency=1) as (_, engine):
        found = dict(engine.stream(ask("a", "b")))
    assert (found[0][0].finish_reason, found[1][0].text) == ("error", "re: b")
    assert "500" in found[0][0].text


@pytest.mark.parametrize(("code", "hint"), [(400, "no 400"), (401, "OPENAI_API_KEY"), (404, "ends in /v1")])
def test_what_trying_again_cannot_mend_is_said_at_once(code, hint):
    with serving(status(code)) as (server, engine), pytest.raises(UserError, match=hint):
        engine.generate(ask("a"))
    assert len(server.bodies) == 1


def test_a_server_that_is_not_there():
    with serving() as (_, engine):
        pass
    engine.tries = 2
    for call in (engine.check, lambda: engine.generate(ask("a"))):
        with pytest.raises(UserError, match="does not answer"):
            call()


def test_finished_samples_come_before_the_news_that_the_server_died():
    with serving(tries=2, concurrency=1) as (server, engine):
        stream = engine.stream(ask("a", "b"))
        assert next(stream)[1][0].text == "re: a"
        server.script.extend([hang_up, hang_up])
        assert next(stream)[1][0].finish_reason == "error"


def test_requests_are_spread_over_servers():
    with fake_server(slow=0.02) as one, fake_server(slow=0.02) as two:
        engine = OpenAIEngine(f"{one.url},{two.url}", "m", concurrency=4)
        assert engine.check() == 4096
        engine.generate(ask(*"abcdefghijklmnop"))
    assert (one.most, two.most) == (2, 2)
    assert len(one.bodies) + len(two.bodies) == 16


def test_what_a_dying_server_leaves_goes_to_the_others():
    def die(handler):
        handler.server.die()
        hang_up(handler)

    with fake_server(slow=0.02) as one, fake_server(None, None, None, die, slow=0.02) as two:
        engine = OpenAIEngine(f"{one.url},{two.url}", "m", concurrency=6)
        found = engine.generate(ask(*(str(i) for i in range(40))))
    assert [group[0].text for group in found] == [f"re: {i}" for i in range(40)]
    assert len(two.bodies) < 12


def test_a_server_that_comes_back_gets_requests_again(monkeypatch):
    with fake_server() as one, fake_server() as two:
        engine = OpenAIEngine(f"{one.url},{two.url}", "m", concurrency=1)
        suspended = engine.servers.all[1]
        suspended.record_failure(suspend=True)
        engine.generate(ask(*"abcd"))
        assert (len(one.bodies), len(two.bodies)) == (4, 0)
        suspended._probe_time = 0.0
        engine.generate(ask(*"ab"))
        assert not suspended.suspended


def test_a_suspended_server_stays_so_when_it_cannot_count_tokens():
    with fake_server() as gone:
        engine = OpenAIEngine(gone.url, "m")
    engine.servers.all[0].record_failure(suspend=True)
    assert engine.count_tokens([{"role": "user", "content": "1 + 1"}]) > 5
    assert engine.servers.all[0].suspended


def test_a_server_that_is_absent_at_the_start_is_done_without(caplog):
    with fake_server() as gone:
        pass
    with fake_server() as here:
        engine = OpenAIEngine(f"{gone.url},{here.url}", "m", pause=0.01)
        assert engine.check() == 4096
        assert f"{gone.url} does not answer" in caplog.text
        engine.generate(ask(*"abc"))
    assert len(here.bodies) == 3


def test_connections_are_kept_open():
    with serving(concurrency=2) as (server, engine):
        engine.generate(ask(*(str(i) for i in range(20))))
    assert server.connections <= 2


def test_concurrency_is_bounded_and_used():
    with serving(slow=0.03, concurrency=4) as (server, engine):
        engine.generate(ask(*"abcdefghijkl"))
    assert server.most == 4


def test_requests_are_taken_only_as_there_is_room():
    taken = []

    def requests():
        for request in ask(*"abcdefghij"):
            taken.append(request.id)
            yield request

    with serving(concurrency=2) as (_, engine):
        next(engine.stream(requests()))
        assert len(taken) <= 4


def test_leaving_does_not_wait_for_the_server():
    script = """
import sys
from open_r1.engine.openai_engine import OpenAIEngine
from open_r1.engine.protocol import Request, Sampling
ask = [Request(i, [{"role": "user", "content": "a"}], Sampling()) for i in range(2)]
print(next(OpenAIEngine(sys.argv[1], "m", concurrency=2).stream(ask))[1][0].text)
"""
    released = threading.Event()
    with serving(lambda handler: released.wait(60)) as (server, _):
        done = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, timeout=50)
        released.set()
    assert done.stdout == "re: a\n"


def test_reasoning_apart_is_put_back_before_the_answer():
    message = {"content": "42", "reasoning_content": "hm"}
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    with serving(lambda handler: handler.reply(200, reply)) as (_, engine):
        assert engine.generate(ask("a"))[0][0].text == "<think>\nhm\n</think>\n42"


def test_logprobs_are_asked_for_and_read_if_they_are_wanted():
    choice = {"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [{"logprob": -0.5}]}}
    with serving(lambda handler: handler.reply(200, {"choices": [choice]})) as (server, engine):
        completion = engine.generate(ask("a"))[0][0]
        engine.generate(ask("a", logprobs=False))
    assert (completion.logprobs, completion.n_tokens) == ([-0.5], 1)
    assert server.bodies[0]["logprobs"] is True
    assert "logprobs" not in server.bodies[1]


def test_text_streams_with_the_reasoning_apart():
    with serving() as (server, engine):
        messages = [{"role": "user", "content": "6*7?"}]
        parts = list(engine.stream_text(messages, temperature=0.6, top_p=0.95, seed=0))
    assert "max_tokens" not in server.bodies[0]
    assert parts == [("reasoning", "hm"), ("content", "4"), ("content", "2")]


def test_an_unknown_model_is_named():
    with serving() as (server, _), pytest.raises(UserError, match="serves m"):
        OpenAIEngine(server.url, "other").check()


def test_the_bound_on_tokens_holds_for_any_tokenizer():
    assert prompt_bound([{"role": "user", "content": "数学" * 10}]) >= 60
