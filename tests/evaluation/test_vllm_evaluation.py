"""Benchmarks with vLLM, on this machine's CPU (make test-vllm) or GPU: killed, and continued."""

import json
import subprocess
import sys
import time

import psutil
import pytest
from patience import PATIENCE

from open_r1 import evaluate
from open_r1.engine import opening
from open_r1.errors import UserError
from open_r1.evaluation.store import read_samples

ENGINE = ["--engine", "vllm", "--enforce-eager", "--max-num-seqs", "4", "--gpu-memory-utilization", "0.2"]


@pytest.fixture
def words(tmp_path, tmp_path_factory):
    from toys import make_model, make_tokenizer

    model = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(model, arch="llama", hidden_size=128, max_position_embeddings=2048)
    rows = [{"problem": f"{i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampling = ["--num-samples", "3", "--max-new-tokens", "600"]
    return ["--model", str(model), "--tasks", str(tmp_path / "sums.jsonl"), *ENGINE, *sampling]


def wait_for(journal, lines, process):
    deadline = time.monotonic() + PATIENCE
    while not (journal.exists() and journal.read_text().count('"completion"') >= lines):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


@pytest.mark.vllm
def test_killed_and_continued_each_sample_is_there_once(words, tmp_path):
    command = [sys.executable, "-m", "open_r1.evaluate", *words, "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_for(tmp_path / "out" / "sums" / "samples.jsonl", 4, process)
    finally:
        process.kill()
        process.wait()
    kept = [json.loads(line) for line in (tmp_path / "out" / "sums" / "samples.jsonl").read_text().splitlines()]
    kept = {(row["index"], row["sample"]): row["completion"] for row in kept if "completion" in row}
    assert 4 <= len(kept) < 36
    evaluate.main([*words, "--output", str(tmp_path / "out")])
    rows = read_samples(tmp_path / "out" / "sums")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(12) for j in range(3)]
    again = {(row["index"], row["sample"]): row["completion"] for row in rows}
    assert {key: again[key] for key in kept} == kept
    assert len({row["completion"] for row in rows}) > 12


@pytest.mark.vllm
def test_an_engine_that_dies_is_a_sentence_and_finished_samples_are_kept(words, tmp_path, monkeypatch):
    open_vllm = opening._open_vllm

    def dying(options):
        opened = open_vllm(options)
        stream = opened.engine.stream

        def until_it_dies(requests):
            for number, finished in enumerate(stream(requests)):
                yield finished
                if number == 2:
                    for process in psutil.Process(opened.engine.processes[0].process.pid).children():
                        process.kill()

        opened.engine.stream = until_it_dies
        return opened

    monkeypatch.setattr(opening, "_open_vllm", dying)
    with pytest.raises(UserError, match=r"exit code 137 \(SIGKILL\)[\s\S]*[1-9]\d* finished samples are saved"):
        evaluate.main([*words, "--output", str(tmp_path / "out")])


def test_more_gpus_than_there_are_is_a_sentence(tiny_model, sums, monkeypatch):
    monkeypatch.setattr("open_r1.engine.choose.gpu_count", lambda: 2)
    for options, expected in (
        (["--engine", "vllm", "--tensor-parallel-size", "4"], "needs 4 GPUs, but 2 are visible: lower --data-par"),
        (["--engine", "transformers", "--data-parallel-size", "2"], "the engine transformers runs only once"),
    ):
        with pytest.raises(UserError, match=expected):
            evaluate.main(["--model", str(tiny_model), "--tasks", str(sums), *options])
