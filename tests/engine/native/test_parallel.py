"""Native engines in processes of their own, on the CPU: two of them write what one writes."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from toys import make_model, make_tokenizer

from open_r1.engine.native.parallel import ParallelEngine
from open_r1.engine.opening import open_engine
from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Request, Sampling
from open_r1.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch="llama", max_position_embeddings=2048)
    return str(folder)


@pytest.fixture(scope="module")
def pair(model):
    """Two engines; only the tests that end them are after all others."""
    opened = open_engine(EngineOptions(model, engine="native", data_parallel_size=2, max_num_seqs=8))
    opened.reserve(600)
    opened.start(Sampling(top_p=0.9))
    yield opened
    opened.engine.close()


def asked(count, max_tokens=20):
    return [
        Request(("row", i), [40 + i % 50] * (i % 5 + 1), Sampling(n=2, max_tokens=max_tokens, seed=i))
        for i in range(count)
    ]


def test_two_write_what_one_writes(pair, model):
    assert isinstance(pair.engine, ParallelEngine)
    one = open_engine(EngineOptions(model, engine="native", max_num_seqs=8))
    assert pair.identity == one.identity and pair.stop_token_ids == one.stop_token_ids
    one.reserve(600)
    counted = []
    pair.watch(counted.append)
    found = pair.engine.generate(asked(30))
    pair.watch(None)
    for group, other in zip(found, one.engine.generate(asked(30)), strict=True):
        for a, b in zip(group, other, strict=True):
            assert (a.token_ids, a.text, a.finish_reason) == (b.token_ids, b.text, b.finish_reason)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    assert sum(counted) == sum(len(c.token_ids) for group in found for c in group)
    one.engine.close()


def test_requests_are_shared_out_and_read_as_they_are_needed(pair, monkeypatch):
    sent, read = dict.fromkeys(pair.engine.workers, 0), []
    for worker in pair.engine.workers:
        send = worker.send

        def counting(message, worker=worker, send=send):
            sent[worker] += isinstance(message, Request)
            send(message)

        monkeypatch.setattr(worker, "send", counting)
    few = pair.engine.generate(asked(2))
    assert len(few) == 2 and list(sent.values()) == [1, 1]
    stream = pair.engine.stream(read.append(r) or r for r in asked(200))
    next(stream)
    assert 16 <= len(read) < 30  # 8 at once and 8 that wait, in each of two, with 2 completions each
    assert len(list(stream)) == 199
    assert min(sent.values()) > 50


def test_a_stream_that_is_given_up_leaves_the_engines_idle(pair):
    stream = pair.engine.stream(asked(40, max_tokens=500))
    next(stream)
    stream.close()
    again = pair.engine.generate(asked(4))
    assert [len(group) for group in again] == [2] * 4


def test_without_requests_there_are_no_answers(pair):
    assert list(pair.engine.stream([])) == []


def test_a_model_that_an_engine_cannot_load_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"the native engine on the CPU: .*the folder has no tokenizer"):
        ParallelEngine(EngineOptions(str(tmp_path), engine="native"), ["", ""])


def test_an_engine_that_hangs_is_a_sentence_and_the_other_ends(model, monkeypatch):
    engine = ParallelEngine(EngineOptions(model, engine="native", max_num_seqs=8), ["", ""])
    engine.need(600)
    processes = [psutil.Process(worker.process.pid) for worker in engine.workers]
    stream = engine.stream(asked(40, max_tokens=500))
    next(stream)
    monkeypatch.setattr("open_r1.engine.native.parallel.SILENT_SECONDS", 2.0)
    processes[1].suspend()
    with pytest.raises(UserError, match=r"hangs: nothing for 2 s from the CPU \(its log is [^)]+\)\.$"):
        list(stream)
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_an_engine_that_is_killed_is_a_sentence_and_the_other_ends(pair):
    """The last test with these engines."""
    processes = [psutil.Process(worker.process.pid) for worker in pair.engine.workers]
    log = pair.engine.workers[1].log
    stream = pair.engine.stream(asked(200, max_tokens=500))
    next(stream)
    processes[1].send_signal(signal.SIGKILL)
    with pytest.raises(UserError, match=r"engine on the CPU ended with exit code -?\d+ \(SIGKILL\); its log"):
        list(stream)
    assert not psutil.wait_procs(processes, timeout=10)[1]
    assert Path(log).exists()


def test_an_engine_loads_no_library_for_data():
    modules = "open_r1.engine.native.worker, open_r1.engine.native.engine, open_r1.data.conversations"
    code = f"import sys, {modules}\nprint(sorted({{'datasets', 'pandas', 'peft'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
