"""Real vLLM servers on this machine's CPU (make test-vllm), against the transformers engine."""

import json
from dataclasses import replace

import psutil
import pytest
import torch
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.openai_servers import Refusal
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.engine.vllm.addresses import free_port
from open_r1.engine.vllm.engine import VLLMServerEngine
from open_r1.engine.vllm.process import ServerOptions, start_servers, vllm_server
from open_r1.engine.vllm.servers import GONE
from open_r1.errors import UserError

pytestmark = pytest.mark.vllm
PROMPTS = [[40, 41, 42], [50], [60, 61, 62, 63, 64, 65, 66], [70, 71]]


def server_options(folder, **options):
    return ServerOptions(
        model=str(folder),
        **{
            "port": free_port(8200),
            "dtype": "float32",
            "max_model_len": 64,
            "max_num_seqs": 16,
            "gpu_memory_utilization": 0.2,
            "enforce_eager": True,
        }
        | options,
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(process, its engine, the transformers engine) with the same weights; the head is tied to the embedding."""
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch="qwen2", tie_word_embeddings=True, hidden_size=128)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (server,) = start_servers([vllm_server(server_options(folder), [], folder / "server.log")], 300.0, print)
    try:
        engine = VLLMServerEngine(server.url, tokenizer, max_model_len=64, group_port=0)
        yield server, engine, TransformersEngine(model, tokenizer)
        engine.close()
    finally:
        server.stop()


def kill(server):
    """The server's first process, at once."""
    for process in psutil.Process(server.process.pid).children():
        process.kill()


def asked(**options):
    return [Request(i, p, Sampling(**{"max_tokens": 12, **options})) for i, p in enumerate(PROMPTS)]


def assert_same(engine, reference, **options):
    found = engine.generate(asked(temperature=0.0, stop_token_ids=(2,), **options))
    expected = reference.generate(asked(temperature=0.0, stop_token_ids=(2,), **options))
    for group, other in zip(found, expected, strict=True):
        for a, b in zip(group, other, strict=True):
            assert (a.token_ids, a.text, a.finish_reason) == (b.token_ids, b.text, b.finish_reason)
            torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), rtol=0, atol=1e-3)


def test_greedy_completions_and_their_logprobs_agree_with_transformers(parts):
    _, engine, reference = parts
    assert_same(engine, reference, n=2)


def test_logprobs_are_of_the_distribution_that_was_sampled_from(parts):
    _, engine, reference = parts
    for prompt, group in zip(PROMPTS, engine.generate(asked(n=3, temperature=0.6)), strict=True):
        assert len({tuple(c.token_ids) for c in group}) > 1
        for completion in group:
            ids = torch.tensor(prompt + completion.token_ids)
            with torch.no_grad():
                logits = reference.model(input_ids=ids[None, :-1]).logits[0, len(prompt) - 1 :]
            expected = (logits / 0.6).log_softmax(-1).gather(-1, ids[len(prompt) :, None]).squeeze(-1)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-3)


def test_samples_follow_their_seed(parts):
    _, engine, _ = parts
    first, again = (engine.generate(asked(n=3, temperature=1.0, seed=7)) for _ in range(2))
    assert [[c.token_ids for c in group] for group in first] == [[c.token_ids for c in group] for group in again]


@pytest.mark.parametrize("logprobs", [True, False])
def test_completions_are_those_of_vllms_own_route(parts, logprobs):
    """Sampled with a seed, to the end or to a stop token; the same route with and without logprobs."""
    _, engine, _ = parts
    sampling = Sampling(n=4, max_tokens=30, temperature=0.8, stop_token_ids=(2, *range(100, 110)), seed=3)
    requests = [Request(i, p, replace(sampling, logprobs=logprobs)) for i, p in enumerate(PROMPTS)]
    (server,) = engine.servers.all
    reasons = set()
    for request, group in zip(requests, engine.generate(requests), strict=True):
        body = {"model": engine.info.model, "prompt": request.prompt, "n": 4, "max_tokens": 30, "temperature": 0.8}
        body |= {"stop_token_ids": list(sampling.stop_token_ids), "ignore_eos": True, "seed": 3}
        body |= {"logprobs": 0, "return_token_ids": True}
        choices = server.read_json("/completions", body, 60.0)["choices"]
        assert [c.token_ids for c in group] == [c["token_ids"] for c in choices]
        assert [c.finish_reason for c in group] == [c["finish_reason"] for c in choices]
        for completion, choice in zip(group, choices, strict=True):
            expected = choice["logprobs"]["token_logprobs"] if logprobs else None
            assert completion.logprobs == (pytest.approx(expected, abs=1e-4) if logprobs else None)
        reasons |= {c.finish_reason for c in group}
    assert reasons == {"stop", "length"}


def test_vllms_own_routes_still_see_every_token(parts):
    """A stop string, which vLLM's front end looks for while tokens arrive."""
    _, engine, _ = parts
    (server,) = engine.servers.all
    body = {"model": engine.info.model, "prompt": PROMPTS[0], "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    (whole,) = server.read_json("/completions", body, 60.0)["choices"]
    sought = whole["text"][len(whole["text"]) // 2 :][:2]
    (cut,) = server.read_json("/completions", body | {"stop": sought}, 60.0)["choices"]
    assert (cut["text"], cut["finish_reason"]) == (whole["text"].partition(sought)[0], "stop")
    with server.open("/completions", body | {"stream": True}, 60.0) as response:
        lines = [line for line in response.read().decode().splitlines() if line.startswith("data: {")]
    assert len(lines) > 10
    assert "".join(json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines) == whole["text"]


def test_what_vllm_refuses_is_a_sentence(parts):
    """A prompt that is too long, as of an engine whose servers have less room than it thinks."""
    _, engine, _ = parts
    engine.max_model_len = 200
    try:
        with pytest.raises(UserError, match=r"refuses a request \(400\): .*(64|longer|maximum)"):
            engine.generate([Request(0, [40] * 100, Sampling(max_tokens=5))])
    finally:
        engine.max_model_len = 64
    with pytest.raises(Refusal) as refusal:
        engine.servers.all[0].complete([40], {"no_such_parameter": 1}, 60.0)
    assert refusal.value.status == 400
    assert len(engine.generate(asked())) == len(PROMPTS)


def test_requests_whose_client_leaves_are_aborted(parts):
    """Or those that are asked for next would wait for all of them."""
    _, engine, _ = parts
    (server,) = engine.servers.all

    def written():
        with server.open("metrics", None, 10.0) as response:
            lines = response.read().decode().splitlines()
        return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith("vllm:generation_tokens_total{"))

    before = written()
    with pytest.raises(GONE):
        server.complete([40], {"n": 2000, "max_tokens": 60, "ignore_eos": True}, 0.5)
    engine.generate(asked())
    assert before < written() < before + 2000 * 60 / 2


def test_new_weights_are_followed_and_old_caches_forgotten(parts):
    """Invariant 6, and again after a second update, each in several buckets."""
    _, engine, reference = parts
    before, checksum = engine.generate(asked(temperature=0.0)), engine.checksum()
    for version in (1, 2):
        with torch.no_grad():
            for parameter in reference.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3 * parameter.std().nan_to_num(0.0))
        engine.update_weights(reference.model.named_parameters(), version)
        assert_same(engine, reference)
    after = engine.generate(asked(temperature=0.0))
    assert [c.token_ids for (c,) in after] != [c.token_ids for (c,) in before]
    assert {c.weights_version for (c,) in after} == {2}
    assert engine.checksum() != checksum


def test_a_server_that_cannot_load_its_model_says_why(tmp_path):
    folder = make_tokenizer(tmp_path / "model", pad=None)
    make_model(folder, arch="llama", hidden_size=128)
    (folder / "model.safetensors").unlink()
    server = vllm_server(server_options(folder), [], tmp_path / "server.log")
    with pytest.raises(UserError, match=r"ended with exit code 1[\s\S]*server\.log"):
        start_servers([server], 300.0, print)


def test_a_server_that_is_killed_is_a_sentence(parts):
    """The last test: it ends the server."""
    server, engine, _ = parts
    stream = engine.stream(Request(i, [40], Sampling(max_tokens=60)) for i in range(2000))
    next(stream)
    kill(server)
    with pytest.raises(UserError, match=r"left the run[\s\S]*same command: it continues"):
        list(stream)
