"""Two native engines, each in its own process: killed in every way, continued, and the rows of one process. In two
processes on a CPU, and on two GPUs.
"""

import json
import subprocess
import sys
import time

import psutil
import pytest
from datasets import load_dataset
from patience import PATIENCE
from toys import make_model, make_tokenizer

from open_r1 import evaluate, generate
from open_r1.devices import gpu_count
from open_r1.engine.native.parallel import ParallelEngine
from open_r1.errors import UserError
from open_r1.evaluation.store import read_samples


@pytest.fixture
def words(tmp_path):
    model = make_model(make_tokenizer(tmp_path / "model", pad=None), hidden_size=128, max_position_embeddings=2048)
    rows = [{"problem": f"{i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = ["--engine", "native", "--max-num-seqs", "4", "--enforce-eager"]
    return ["--model", str(model), *engine, "--max-new-tokens", "200"]


def evaluation(words, tmp_path, out, *more):
    sampling = ["--num-samples", "3", "--output", str(tmp_path / out)]
    return evaluate, [*words, "--tasks", str(tmp_path / "sums.jsonl"), *sampling, *more]


def generation(words, tmp_path, out, *more):
    sampling = ["--num-generations", "3", "--rows-per-shard", "4", "--output", str(tmp_path / out)]
    return generate, [
        *words,
        "--hf-dataset",
        str(tmp_path / "sums.jsonl"),
        "--prompt-column",
        "problem",
        *sampling,
        *more,
    ]


def evaluated(tmp_path, out):
    return [(row["index"], row["sample"], row["completion"]) for row in read_samples(tmp_path / out / "sums")]


def generated(tmp_path, out):
    rows = load_dataset(str(tmp_path / out), split="train")
    return sorted((row["index"], row["sample"], row["completion"]) for row in rows)


def kill_after(stream, killed):
    """`ParallelEngine.stream` whose second engine is killed after a few requests."""

    def until_it_dies(self, requests):
        for number, finished in enumerate(stream(self, requests)):
            yield finished
            if number == 4 and not killed:
                killed.extend(psutil.Process(worker.process.pid) for worker in self.workers)
                killed[1].kill()

    return until_it_dies


TWO_GPUS = [pytest.mark.gpu, pytest.mark.skipif(gpu_count() < 2, reason="needs two GPUs")]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=TWO_GPUS)])
@pytest.mark.parametrize(("task", "rows"), [(evaluation, evaluated), (generation, generated)])
def test_killed_and_continued_two_engines_write_the_rows_of_one_process(
    words, tmp_path, monkeypatch, task, rows, device
):
    """On GPUs, products in another batch differ in their last bits, so that completions are not compared there."""
    if device == "cpu":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        command, whole = task(words, tmp_path, "whole", "--data-parallel-size", "1")
        command.main(whole)
    command, two = task(words, tmp_path, "two", "--data-parallel-size", "2")

    process = subprocess.Popen([sys.executable, "-m", command.__name__, *two], start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not (journal := [f for f in (tmp_path / "two").rglob("*.jsonl") if f.stat().st_size > 300]):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    engines = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert journal and len(engines) >= 2
    assert not psutil.wait_procs(engines, timeout=15)[1]

    killed = []
    monkeypatch.setattr(ParallelEngine, "stream", kill_after(ParallelEngine.stream, killed))
    with pytest.raises(UserError, match=r"ended with exit code -?\d+ \(SIGKILL\); its log.* saved"):
        command.main(two)
    assert killed and not psutil.wait_procs(killed, timeout=15)[1]

    command.main(two)
    found = rows(tmp_path, "two")
    assert [row[:2] for row in found] == [(index, sample) for index in range(12) for sample in range(3)]
    if device == "cpu":
        assert found == rows(tmp_path, "whole")
