"""`benchmarks/long.py`: settings until one fits, results that are not measured twice, and rows that end in an error."""

import gc
import importlib
import json
import multiprocessing
import os
import time
import weakref
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
WORDS = ["--shapes", "tiny", "--train", "full", "--sft", "512", "256", "--grpo", "128", "--time_budget", "100"]
CASE = {"shape": "tiny", "train": "full", "task": "sft", "count": 1, "length": 96, "compiled": False, "attention": None}
GRPO = {"task": "grpo", "count": 2, "length": 48}


@pytest.fixture(scope="module")
def long():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("long")


@pytest.fixture(scope="module")
def worker(long):
    return importlib.import_module("long_worker")


def case(setting="plain", **change):
    return CASE | {"setting": setting, "estimate": 2**30} | change


@pytest.fixture
def asked(long, monkeypatch):
    """Cases that a worker was asked for; it answers `asked.answer(case)`, or that the case fits."""

    class Asked(list):
        def answer(self, case):
            return {"seconds": [0.5], "tokens_per_second": 1234, "peak_gib": 1.25, "error": None}

    seen = Asked()

    def measure(self, case, steps, timeout):
        seen.append((case["task"], case["length"], case["setting"]))
        return {"case": long.name(case), "settings": case | {"estimate": 2**30}} | seen.answer(case)

    monkeypatch.setattr(long.Worker, "start", lambda self: None)
    monkeypatch.setattr(long.Worker, "measure", measure)
    return seen


def test_settings_are_tried_until_one_fits_and_nothing_twice(long, asked, tmp_path, capsys):
    fits = asked.answer

    def answer(case):
        full = case["setting"] == "plain" and case["length"] == 256
        return fits(case) | ({"error": "out of memory: CUDA", "seconds": []} if full else {})

    asked.answer = answer
    words = [*WORDS, "--results", str(tmp_path / "found.jsonl")]
    long.main(words)
    # Shortest first; what ran out of memory is not tried with a longer sequence of the same task.
    assert asked == [("grpo", 128, "plain"), ("sft", 256, "plain"), ("sft", 256, "chunks"), ("sft", 512, "chunks")]
    shown = capsys.readouterr().out
    assert "| tiny full, sft 1 x 256, plain | - | - | 1.2 | 1.0 | - | 0 | out of memory: CUDA |" in shown
    assert "| tiny full, grpo 2 x 128, plain | - | 1,234 | 1.2 | 1.0 | -20.0% | 0 | fits |" in shown
    assert "The worst of 3 estimates is -20.0% off: tiny full, grpo 2 x 128, plain." in shown
    for again in ([], ["--table"]):
        long.main([*words, *again])
        assert capsys.readouterr().out == shown
    assert len(asked) == 4


def test_a_row_that_the_time_does_not_suffice_for_is_left_for_the_next_call(long, asked, tmp_path, capsys):
    """A step of 256 tokens takes 50 s, so that 512 would take more than 100."""
    fits = asked.answer
    asked.answer = lambda case: fits(case) | {"seconds": [50.0]}
    words = [*WORDS, "--results", str(tmp_path / "found.jsonl")]
    long.main(words)
    assert asked == [("grpo", 128, "plain"), ("sft", 256, "plain")]
    shown = capsys.readouterr().out
    assert "The time is too short for 1 rows, which the same command measures:" in shown
    assert "  tiny full, sft 1 x 512, plain\n" in shown
    long.main([*words, "--time_budget", "1000"])
    assert asked == [("grpo", 128, "plain"), ("sft", 256, "plain"), ("sft", 512, "plain")]


def test_rows_to_compare_are_measured_with_every_setting(long, asked, tmp_path, capsys):
    results = tmp_path / "found.jsonl"
    words = [*WORDS, "--every", "256", "--results", str(results)]
    long.main(words)
    shown = capsys.readouterr().out
    assert asked == [
        ("grpo", 128, "plain"),
        *(("sft", 256, setting) for setting in ("plain", "chunks", "offload", "8bit", "paged")),
        ("sft", 512, "plain"),
    ]
    results.write_text("".join(line for line in results.read_text().splitlines(True) if "chunks" not in line))
    long.main([*words, "--table"])  # one setting that has not been measured does not hide the others
    lines = [line for line in shown.splitlines() if "chunks" not in line]
    assert capsys.readouterr().out.splitlines()[:-1] == lines[:-1]
    asked.clear()
    long.main([*WORDS, "--train", "lora", "--sft", "256", "--grpo", "--every", "256"])
    assert asked == [("sft", 256, "plain"), ("sft", 256, "chunks"), ("sft", 256, "offload")]


def test_what_cannot_fit_by_the_estimate_is_not_tried(long, asked, monkeypatch, tmp_path, capsys):
    args = ["--shapes", "tiny", "--train", "full", "--sft", "16384", "--grpo", "--every"]
    row = CASE | {"length": 16384}
    plain, offload = (long.estimate(row | {"setting": s}, long.skeleton("tiny"))[0] for s in ("plain", "offload"))
    monkeypatch.setattr(long, "gpu_bytes", lambda: (plain + offload) / 2)
    words = [*args, "--settings", "plain", "offload", "--results", str(tmp_path / "found.jsonl")]
    long.main(words)
    assert asked == [("sft", 16384, "offload")]
    shown = capsys.readouterr().out
    assert "out of memory by the estimate, not tried" in shown and "| fits |" in shown
    long.main([*words, "--table"])
    assert capsys.readouterr().out == shown


def test_the_estimate_for_a_gpu_counts_what_flash_attention_keeps(long, monkeypatch):
    """The process that estimates stays off the GPU, which used to mean attention without flash-attn-4."""
    monkeypatch.setattr(long, "DEVICE", "cuda")
    model = long.skeleton("135m")
    row = case(shape="135m", length=32768)
    flash, varlen = (long.estimate(row | {"attention": a}, model, bf16=True)[0] for a in (None, "varlen"))
    assert flash - varlen == 30 * 2 * 576 * 32768


def test_an_error_that_is_not_memory_goes_on_with_the_next_row(long, asked):
    asked.answer = lambda case: {"error": "ValueError: no"}
    long.main(WORDS)
    assert asked == [("grpo", 128, "plain"), ("sft", 256, "plain"), ("sft", 512, "plain")]


@pytest.mark.parametrize("train", ["full", "lora"])
def test_one_model_is_measured_again_and_again(worker, monkeypatch, train):
    """Short step and whole one, in chunks and not, after running out of memory in any part of a step."""
    built, trainers, chunked, backwards = [], [], [], []
    build, make, backward = worker.build_model, worker.trainer_of, torch.Tensor.backward
    monkeypatch.setattr(worker, "WARM_UP", 32)
    monkeypatch.setitem(worker.SETTINGS, "chunks", {"mlp_chunk_tokens": worker.CHUNK})

    def trainer_of(case, policy, timer, folder):
        chunked.append(any(isinstance(m, worker.ChunkedMLP) for m in policy.model.modules()))
        trainer = make(case, policy, timer, folder)
        trainers.append(weakref.ref(trainer))
        return trainer

    def full(*args, **kwargs):
        backwards.append(None)
        if len(backwards) in out_of_memory_at:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return backward(*args, **kwargs)

    monkeypatch.setattr(worker, "build_model", lambda *args: built.append(args) or build(*args))
    monkeypatch.setattr(worker, "trainer_of", trainer_of)
    monkeypatch.setattr(torch.Tensor, "backward", full)
    out_of_memory_at = (1, 3)
    cases = worker.Cases()
    for part in ("the backward pass of the short step", "the backward pass"):
        found = cases.measure(case(train=train), 1)
        assert found["error"] == f"out of memory in {part}: CUDA out of memory."
    for change in ({}, {"setting": "chunks"}, {"setting": "offload"}, GRPO, GRPO | {"setting": "chunks"}):
        found = cases.measure(case(train=train) | change, 2)
        assert found["error"] is None and found["attention"] == "sdpa"
        assert found["tokens"] == 2 * [2 * (48 + worker.PROMPT) if "task" in change else 96]
        assert json.loads(json.dumps(found))["tokens_per_second"] > 0
    assert chunked == [False, False, False, True, True, False, True]
    gc.collect()
    assert len(built) == 1 and all(trainer() is None for trainer in trainers)
    assert all(p.grad is None for p in cases.policy.model.parameters())


@pytest.mark.parametrize("train", ["full", "lora"])
def test_every_trainer_of_a_model_computes_in_bfloat16(worker, monkeypatch, train):
    """The trainers after the first one used to compute in float32."""
    config_of = worker.config_of
    monkeypatch.setattr(worker, "config_of", lambda case, folder: config_of(case, folder, bf16=True))
    cases = worker.Cases()
    cases.policy = worker.Policy(case(train=train))
    dtypes = []
    projection = next(m for name, m in cases.policy.model.named_modules() if name.endswith("q_proj"))
    projection.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    for change in ({}, {"setting": "offload"}, GRPO):
        dtypes.clear()
        assert cases.measure(case(train=train) | change, 1)["error"] is None
        assert set(dtypes) == {torch.bfloat16}


def test_pinned_memory_of_the_same_size_is_kept(worker, monkeypatch):
    """PyTorch rounds blocks of pinned memory up to powers of two: 96 and 120 tokens share one size, 200 do not."""
    pinned, empty = [], torch.empty

    def cpu_empty(size, pin_memory, **kwargs):
        pinned.append(size)
        return empty(size, **kwargs)

    cases = worker.Cases()
    config = worker.Policy(case()).model.config
    monkeypatch.setattr(worker, "empty_host_cache", lambda: pinned.append("emptied"))
    monkeypatch.setattr(torch, "empty", cpu_empty)
    for length in (96, 120, 200):
        cases.pin_memory(case("offload", length=length), config)
    assert pinned == ["emptied", *2 * [4 * 64 * 96], "emptied", *2 * [4 * 64 * 200]]


def test_an_attention_that_does_not_run_here_is_an_error(worker):
    found = worker.Cases().measure(case(attention="flash_attention_4"), 1)
    assert found["error"] == "UserError: --attention is flash_attention_4, and sdpa is what runs here."
    assert found["case"] == "tiny full, sft 1 x 96, plain, flash_attention_4"


class Odd:
    """Instead of the cases of a model: some ways to end."""

    def measure(self, case, steps):
        if case["length"] == 1:
            os._exit(3)
        if case["length"] == 4:
            time.sleep(60)
        return {"case": "odd", "error": "RuntimeError: CUDA error" if case["length"] == 2 else None, "pid": os.getpid()}


def odd(connection):
    cases = Odd()
    while True:
        connection.send(cases.measure(*connection.recv()))


def test_a_process_that_ends_hangs_or_is_spoiled_is_replaced(long, monkeypatch):
    context = multiprocessing.get_context("fork")  # which is quick, and has the odd ones
    monkeypatch.setattr(long, "serve", odd)
    monkeypatch.setattr(long.multiprocessing, "get_context", lambda _: context)
    worker = long.Worker()
    try:
        first = worker.measure(case(length=3), 1, 60)["pid"]
        assert worker.measure(case(length=3), 1, 60)["pid"] == first
        assert worker.measure(case(length=1), 1, 60)["error"] == "the process ended with status 3"
        second = worker.measure(case(length=2), 1, 60)["pid"]
        assert second != first
        third = worker.measure(case(length=3), 1, 60)["pid"]
        assert third != second
        assert worker.measure(case(length=4), 1, 0)["error"] == "not finished after 0 s"
        assert worker.measure(case(length=3), 1, 60)["pid"] != third
    finally:
        worker.close()
