"""vLLM's engines on several GPUs, with a stand-in for vLLM: what is dealt to whom, and what happens when one dies."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from toys import make_model, make_tokenizer
from transformers import AutoTokenizer

from open_r1 import evaluate
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions
from open_r1.engine.vllm_process import WorkerProcess
from open_r1.errors import UserError
from open_r1.evaluation.store import read_samples

STAND_INS = Path(__file__).parents[1] / "stand_ins"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(make_tokenizer(tmp_path_factory.mktemp("model"), pad=None), max_position_embeddings=256)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_VLLM_CLOSED", str(tmp_path / "closed"))
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    monkeypatch.setattr("open_r1.engine.vllm_engine.version_of_vllm", lambda: "0.31.0")


@pytest.fixture
def engine_on(folder):
    opened = []

    def start(*devices, max_model_len=64, **options):
        options = VLLMOptions(str(folder), devices=devices, logprobs=False, seed=100, **options)
        opened.append(VLLMEngine(options, AutoTokenizer.from_pretrained(folder), max_model_len=max_model_len))
        return opened[0]

    yield start
    for engine in opened:
        engine.close()


def asked(count, **sampling):
    return [Request(i, [40 + i % 50], Sampling(logprobs=False, **sampling)) for i in range(count)]


def test_requests_are_dealt_to_the_engines_of_all_gpus(engine_on, tmp_path):
    engine = engine_on("0", "1", "4", "5", tensor_parallel=2, max_num_seqs=4)
    groups = engine.generate(asked(40, n=3, max_tokens=5))
    assert [worker.devices for worker in engine.workers] == [["0", "1"], ["4", "5"]]
    assert [[c.token_ids[2:] for c in group] for group in groups] == [[[40 + i] * 3] * 3 for i in range(40)]
    assert {tuple(c.token_ids[:2]) for group in groups for c in group} == {(0, 100), (4, 101)}  # seeds of their own
    engine.close()
    assert (tmp_path / "closed").exists()  # the processes of the other GPUs are ended too


def test_what_vllm_says_of_a_wrong_option_is_passed_on(engine_on):
    with pytest.raises(UserError, match=r"vLLM on GPU 0,1,2: 9 heads\. Its log is"):
        engine_on("0", "1", "2", tensor_parallel=3).start()


def test_what_to_do_without_memory_is_said(engine_on, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM_FAILS", "No memory is left for the cache.")
    engine = engine_on("0", "1")
    with pytest.raises(UserError, match="vllm_gpu_memory_utilization when training, else --gpu-mem"):
        engine.start()
    assert not engine.workers  # no engine is left with memory of a GPU


def test_two_engines_on_each_gpu(engine_on):
    engine = engine_on("0", "1", engines_per_device=2, max_num_seqs=2)
    groups = engine.generate(asked(40, max_tokens=3))
    assert {tuple(c.token_ids[:2]) for (c,) in groups} == {(0, 100), (1, 101), (0, 102), (1, 103)}


def test_long_prompts_and_long_completions_at_once_do_not_wait_for_each_other(engine_on, monkeypatch):
    """Both directions carry more than a socket holds."""
    length = 200_000
    monkeypatch.setenv("FAKE_VLLM_STEP", str(length))
    engine = engine_on("0", max_num_seqs=2, max_model_len=3 * length)
    requests = [Request(i, [40 + i] * length, Sampling(max_tokens=length, logprobs=False)) for i in range(10)]
    found = []
    thread = threading.Thread(target=lambda: found.extend(engine.stream(iter(requests))), daemon=True)
    thread.start()
    thread.join(60)
    assert sorted(key for key, _ in found) == list(range(10))


def test_all_engines_are_told_to_end_before_one_is_waited_for(engine_on, monkeypatch):
    engine, calls = engine_on("0", "1", max_num_seqs=2), []
    engine.start()
    for name in ("leave", "close"):
        monkeypatch.setattr(WorkerProcess, name, lambda self, *_, name=name: calls.append((name, self.devices)))
    workers = engine.workers
    engine.close()
    monkeypatch.undo()
    for worker in workers:
        worker.leave()
        worker.close(deadline=time.monotonic() + 30)
    assert calls == [("leave", ["0"]), ("leave", ["1"]), ("close", ["0"]), ("close", ["1"])]
    assert [worker.process.returncode for worker in workers] == [0, 0]


def test_the_engine_that_dies_is_named(engine_on):
    engine = engine_on("0", "1", max_num_seqs=2)
    stream = engine.stream(iter(asked(10_000, max_tokens=40)))
    next(stream)
    os.kill(engine.workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"vLLM on GPU 1 was killed \(signal 9\)"):
        list(stream)
    assert engine.workers[0].process.poll() is None


@pytest.mark.parametrize("options", [[], ["--data-parallel-size", "2"], ["--tensor-parallel-size", "2"]])
def test_evaluate_on_three_gpus(folder, tmp_path, monkeypatch, caplog, options):
    monkeypatch.setattr("open_r1.engine.vllm_engine.visible_devices", lambda: ["0", "1", "2"])
    (tmp_path / "sums.jsonl").write_text(
        "".join(f'{{"problem": "{i} + {i}?", "answer": "{2 * i}"}}\n' for i in range(6))
    )
    words = ["--model", str(folder), "--tasks", str(tmp_path / "sums.jsonl"), "--engine", "vllm", *options]
    evaluate.main([*words, "--num-samples", "8", "--max-new-tokens", "12", "--output", str(tmp_path / "out")])
    rows = read_samples(tmp_path / "out" / "sums")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(6) for j in range(8)]
    assert ("GPU 2 is left idle" in caplog.text) == bool(options)
