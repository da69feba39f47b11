"""vLLM against the transformers engine, on this machine's CPU (make test-vllm) or GPU."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions, check_installed, device_groups
from open_r1.engine.vllm_worker import GRAPH_SIZES, PATIENCE, Admission, gpu_batch, graph_sizes
from open_r1.errors import UserError

PROMPTS = [[40, 41, 42], [50], [60, 61, 62, 63, 64, 65, 66], [70, 71]]
OPTIONS = {"enforce_eager": True, "max_num_seqs": 16, "gpu_memory_utilization": 0.2, "dtype": "float32"}


def requests(**options):
    return [Request(i, p, Sampling(**{"max_tokens": 12, **options})) for i, p in enumerate(PROMPTS)]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def pair(request, tmp_path_factory):
    """(vLLM's engine, the transformers engine) with the same weights; qwen2's head is tied."""
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch=request.param, tie_word_embeddings=request.param == "qwen2", hidden_size=128)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = VLLMEngine(VLLMOptions(str(folder), **OPTIONS), tokenizer, max_model_len=64)
    engine.start()
    yield engine, TransformersEngine(model, tokenizer)
    engine.close()


def assert_same(engine, reference, **options):
    found = engine.generate(requests(temperature=0.0, stop_token_ids=(2,), **options))
    expected = reference.generate(requests(temperature=0.0, stop_token_ids=(2,), **options))
    for group, other in zip(found, expected, strict=True):
        for a, b in zip(group, other, strict=True):
            assert (a.token_ids, a.text, a.finish_reason) == (b.token_ids, b.text, b.finish_reason)
            torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), rtol=0, atol=1e-3)


@pytest.mark.vllm
def test_greedy_completions_and_their_logprobs_agree_with_transformers(pair):
    assert_same(*pair, n=2)


@pytest.mark.vllm
def test_new_weights_are_followed_and_old_caches_forgotten(pair):
    """Invariant 6, and again after a second update; the head may be tied to the embedding."""
    engine, reference = pair
    before = engine.generate(requests(temperature=0.0))
    for version in (1, 2):
        with torch.no_grad():
            for parameter in reference.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3 * parameter.std().nan_to_num(0.0))
        engine.update_weights(reference.model.named_parameters(), version)
        assert_same(engine, reference)
    after = engine.generate(requests(temperature=0.0))
    assert [c.token_ids for (c,) in after] != [c.token_ids for (c,) in before]
    assert {c.weights_version for (c,) in after} == {2}


@pytest.mark.vllm
@pytest.mark.parametrize("temperature", [0.6, 1.3])
def test_logprobs_are_of_the_distribution_that_was_sampled_from(pair, temperature):
    engine, reference = pair
    for prompt, group in zip(PROMPTS, engine.generate(requests(n=3, temperature=temperature)), strict=True):
        for completion in group:
            ids = torch.tensor(prompt + completion.token_ids)
            with torch.no_grad():
                logits = reference.model(input_ids=ids[None, :-1]).logits[0, len(prompt) - 1 :]
            expected = (logits / temperature).log_softmax(-1).gather(-1, ids[len(prompt) :, None]).squeeze(-1)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-3)


@pytest.mark.vllm
def test_without_logprobs_the_same_tokens_are_written(pair):
    engine, _ = pair
    with_them = engine.generate(requests(n=2, temperature=0.8, top_p=0.9))
    without = engine.generate(requests(n=2, temperature=0.8, top_p=0.9, logprobs=False))
    assert [[replace(c, logprobs=None) for c in group] for group in with_them] == without


@pytest.mark.vllm
def test_samples_of_one_prompt_differ_and_lengths_are_kept(pair):
    engine, _ = pair
    (group,) = engine.generate([Request("a", PROMPTS[2], Sampling(n=8, max_tokens=20))])
    assert len({tuple(c.token_ids) for c in group}) > 1
    assert all(c.finish_reason == "length" and len(c.token_ids) == 20 for c in group)
    ((long,),) = engine.generate([Request("b", list(range(20, 70)), Sampling(max_tokens=500))])
    assert len(long.token_ids) == 64 - 50


@pytest.mark.vllm
def test_many_requests_are_read_only_as_there_is_room_and_each_comes_back_once(pair):
    engine, _ = pair
    read = []

    def asked():
        for i in range(200):
            read.append(i)
            yield Request(i, [40 + i % 50], Sampling(n=2, max_tokens=4))

    stream = engine.stream(asked())
    first, _ = next(stream)
    assert len(read) <= 2 * engine.options.max_num_seqs
    assert sorted([first, *(key for key, _ in stream)]) == list(range(200))


@pytest.mark.vllm
def test_a_stream_that_is_left_does_not_disturb_the_next(pair):
    engine, reference = pair
    stream = engine.stream(Request(i, [40], Sampling(n=4, max_tokens=50)) for i in range(20))
    next(stream)
    stream.close()
    assert_same(engine, reference)


@pytest.mark.vllm
def test_a_prompt_without_room_is_named(pair):
    with pytest.raises(UserError, match="request 7: its prompt has 64 tokens"):
        pair[0].generate([Request(7, [40] * 64, Sampling())])


@pytest.mark.vllm
def test_an_engine_that_is_killed_is_a_sentence(tmp_path):
    folder = make_tokenizer(tmp_path / "model", pad=None)
    make_model(folder, arch="llama", hidden_size=128)
    engine = VLLMEngine(VLLMOptions(str(folder), **OPTIONS), AutoTokenizer.from_pretrained(folder), max_model_len=64)
    stream = engine.stream(Request(i, [40], Sampling(max_tokens=60)) for i in range(10_000))
    next(stream)
    os.kill(engine.workers[0].process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"was killed \(signal 9\)"):
        list(stream)
    engine.close()


@pytest.mark.vllm
def test_a_folder_that_vllm_cannot_load_is_a_sentence_with_the_log(tmp_path):
    folder = make_tokenizer(tmp_path / "model", pad=None)
    make_model(folder, arch="llama", hidden_size=128)
    (folder / "model.safetensors").unlink()
    engine = VLLMEngine(
        VLLMOptions(str(folder), log_dir=tmp_path, **OPTIONS), AutoTokenizer.from_pretrained(folder), max_model_len=64
    )
    with pytest.raises(UserError, match=r"vllm-0\.log"):
        engine.start()
    engine.close()


def test_without_vllm_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr("open_r1.engine.vllm_engine.version_of_vllm", lambda: None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        check_installed()


def test_gpus_are_dealt_to_engines():
    assert device_groups(["0", "1", "4", "5"], 2) == [["0", "1"], ["4", "5"]]
    assert device_groups([], 1) == [[]]
    with pytest.raises(UserError, match="tensor_parallel is 2: it does not divide the 3 GPUs"):
        device_groups(["0", "1", "2"], 2)


def test_weights_travel_in_buckets():
    from open_r1.engine.vllm_weights import WeightReceiver, WeightSender, bucket_size

    tensors = [(f"w{i}", torch.randn(3 + i, 5)) for i in range(7)]
    assert bucket_size([t.numel() for _, t in tensors], torch.float32) >= sum(t.numel() * 4 for _, t in tensors)
    sender = WeightSender(None, size=256)
    receiver = WeightReceiver()
    receiver.device, arrived, buckets = torch.device("cpu"), {}, []
    receiver._rearranged = True
    receiver._buffer = torch.from_file(sender.channel.path, shared=True, size=256, dtype=torch.uint8)

    class Runner:
        def get_model(self):
            return self

        def load_weights(self, weights):
            arrived.update(weights)

    receiver.model_runner = Runner()

    def deliver(bucket):
        buckets.append(len(bucket))
        receiver.load_bucket(bucket)

    sender.send(tensors, torch.float32, deliver)
    sender.close()
    assert len(buckets) > 1 and sum(buckets) == len(tensors)
    assert all(torch.equal(arrived[name], tensor) for name, tensor in tensors)
    assert not math.isnan(sum(t.sum().item() for t in arrived.values()))


def test_every_full_batch_has_a_cuda_graph():
    assert graph_sizes(4) == [1, 2, 4, 8]
    assert graph_sizes(341)[-2:] == [256, 341]
    assert graph_sizes(1024) == graph_sizes(4096) == list(GRAPH_SIZES)


@pytest.mark.parametrize(
    ("sequences", "length", "batch"),
    [(16, 64, 1024), (512, 1024, 8192), (768, 512, 7680), (9000, 4096, 9000), (1, 32768, 8192)],
)
def test_a_gpu_batch_has_as_many_tokens_of_each_sequence_as_fit(sequences, length, batch):
    assert gpu_batch(sequences, length) == batch
    assert batch % sequences == 0 and batch // sequences <= length


@pytest.mark.parametrize(
    ("running", "waiting", "started"),
    [
        (0, 3, 3),  # nothing to wait for
        (0, 99, 16),
        (15, 99, 0),  # one of 16 places is free
        (14, 99, 2),
        (15, 1, 1),  # it is the last one
        (16, 1, 0),
        (16, 0, 0),
    ],
)
def test_sequences_join_many_at_a_time(running, waiting, started):
    assert Admission(16, graphs=True).count(running, waiting) == started


def test_a_free_place_stays_empty_for_so_many_steps_at_most():
    admission = Admission(64, graphs=True)
    for _ in range(2):
        assert [admission.count(62, 9) for _ in range(PATIENCE + 1)] == [0] * PATIENCE + [2]


def test_without_graphs_sequences_join_at_once():
    assert Admission(64, graphs=False).count(63, 9) == 1
