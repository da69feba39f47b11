"""Whole benchmarks: what is written, and what a kill leaves behind."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from evaluation.scripted import Scripted, Started, before_the_clock, evaluate_task, opened

from open_r1.engine.native.scheduler import Scheduler
from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.protocol import request_seed
from open_r1.errors import UserError
from open_r1.evaluation import store
from open_r1.evaluation.plan import plan
from open_r1.evaluation.problems import BenchmarkProblem
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.store import SampleStore, read_samples
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.sampling import journal
from open_r1.sampling.requests import blocks

KEYS = [
    *("task", "model", "engine", "protocol", "n_problems", "num_samples", "pass@1", "ci95", "pass@k", "cons@k"),
    *("mean_tokens", "p95_tokens", "truncated", "no_answer", "ungradable", "seconds", "reported"),
]

TEXTS = {
    0: ["\\boxed{0}", "\\boxed{0}", "\\boxed{0}", "\\boxed{0.0}"],
    1: ["\\boxed{2}", "\\boxed{7}", "\\boxed{7}", "\\boxed{2}"],
    2: ["\\boxed{1}", "\\boxed{1}", "\\boxed{4}", "hm"],
    3: ["well...", "well...", "\\boxed{5}", "\\boxed{6}"],
    4: ["none", "none", "none", "none"],
    5: ["\\boxed{10}", "\\boxed{9}", "\\boxed{8}", "\\boxed{7}"],
}


def run(sums, engine, output, **options):
    task = find_task(str(sums))
    ks = options.pop("ks", ())
    protocol = protocol_for(task, **{"num_samples": 4, "max_new_tokens": 64, **options})
    return evaluate_task(task, load_problems(task), "m", engine, protocol, output, ks=ks)


def test_the_figures_are_those_of_the_samples(sums, tmp_path):
    results = run(sums, opened(Scripted(TEXTS)), tmp_path / "out", ks=(3,))
    assert list(results) == KEYS
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["task"], results["n_problems"], results["num_samples"]) == ("sums", 6, 4)
    assert results["pass@1"] == pytest.approx((4 + 2 + 1 + 1 + 0 + 1) / 24)
    assert results["ci95"][0] < results["pass@1"] < results["ci95"][1]
    assert results["pass@k"]["4"]["value"] == pytest.approx(5 / 6)
    assert set(results["pass@k"]) == {"2", "3", "4"}
    # Votes: 4:0 right; 2:2 tie; 1:2 wrong; 1:1 tie; nobody votes; 1:1:1:1 tie.
    assert results["cons@k"]["4"]["value"] == pytest.approx((1 + 1 / 2 + 0 + 1 / 2 + 0 + 1 / 4) / 6)
    assert results["truncated"] == pytest.approx(2 / 24)
    assert results["no_answer"] == pytest.approx(7 / 24)
    assert results["ungradable"] == 0
    assert results["protocol"]["temperature"] == 0.6
    assert results["reported"] == []


def test_every_sample_is_kept(sums, tmp_path):
    run(sums, opened(Scripted(TEXTS)), tmp_path / "out")
    rows = read_samples(tmp_path / "out")
    assert [(r["index"], r["sample"]) for r in rows] == [(i, j) for i in range(6) for j in range(4)]
    row = rows[5]
    assert (row["id"], row["gold"], row["completion"], row["extracted"], row["correct"]) == (
        *("s1", "2", "\\boxed{7}", "7"),
        False,
    )
    assert row["n_tokens"] == len(row["completion"])
    assert not (tmp_path / "out" / "samples.jsonl").exists()


@pytest.mark.parametrize("lives", [0, 1, 9, 23])
def test_an_engine_that_dies_costs_nothing_that_was_finished(sums, tmp_path, lives):
    with pytest.raises(UserError, match=rf"CUDA error: out of memory. {lives} finished samples are saved"):
        run(sums, opened(Scripted(TEXTS, lives)), tmp_path / "out")
    second = Scripted(TEXTS)
    resumed = run(sums, opened(second), tmp_path / "out")
    whole = run(sums, opened(Scripted(TEXTS)), tmp_path / "whole")
    assert len(second.asked) == 24 - lives
    assert without_time(resumed) == without_time(whole)
    assert read_samples(tmp_path / "out") == read_samples(tmp_path / "whole")


def test_an_engine_starts_before_the_clock(sums, tmp_path, monkeypatch):
    engine = Started(TEXTS)
    before_the_clock(monkeypatch, "open_r1.evaluation.run", engine)
    run(sums, replace(opened(engine), name="vllm"), tmp_path / "out")
    assert engine.asked[:3] == ["start", "clock", (0, 0)]


def test_an_engine_that_does_not_start_is_said_with_what_is_kept(sums, tmp_path):
    class Broken(Started):
        def start(self, sampling=None):
            raise UserError("vLLM on GPU 0: no memory.")

    with pytest.raises(UserError, match=r"vLLM on GPU 0: no memory\. 0 finished samples are saved in"):
        run(sums, replace(opened(Broken(TEXTS)), name="vllm"), tmp_path / "out")


def test_a_line_that_a_kill_left_half_written_is_sampled_again(sums, tmp_path):
    with pytest.raises(UserError):
        run(sums, opened(Scripted(TEXTS, 5)), tmp_path / "out")
    journal = tmp_path / "out" / "samples.jsonl"
    samples = [line for line in journal.read_text().splitlines(keepends=True) if "completion" in line]
    journal.write_text("".join(samples[:2]) + samples[2][:20])
    second = Scripted(TEXTS)
    run(sums, opened(second), tmp_path / "out")
    assert len(second.asked) == 22
    assert len(read_samples(tmp_path / "out")) == 24


def test_a_finished_folder_is_not_sampled_again(sums, tmp_path):
    first = run(sums, opened(Scripted(TEXTS)), tmp_path / "out")
    again = Scripted(TEXTS)
    assert run(sums, opened(again), tmp_path / "out") == first
    assert again.asked == []


@pytest.mark.parametrize(("option", "value"), [("temperature", 1.0), ("seed", 1), ("num_samples", 8)])
def test_other_settings_are_refused_by_name(sums, tmp_path, option, value):
    with pytest.raises(UserError):
        run(sums, opened(Scripted(TEXTS, 3)), tmp_path / "out")
    with pytest.raises(UserError, match=rf"protocol\.{option} was .*, now {value}"):
        run(sums, opened(Scripted(TEXTS)), tmp_path / "out", **{option: value})


def test_other_weights_are_refused(sums, tmp_path):
    engine = opened(Scripted(TEXTS, 3))
    engine.identity = {"weights": "a"}
    with pytest.raises(UserError):
        run(sums, engine, tmp_path / "out")
    with pytest.raises(UserError, match="weights was 'a', now 'b'"):
        run(sums, replace(engine, identity={"weights": "b"}), tmp_path / "out")


def test_a_folder_that_another_evaluation_writes_to_is_refused(sums, tmp_path):
    class Meanwhile(Scripted):
        def stream(self, requests):
            with pytest.raises(UserError, match=r"another process writes there"):
                run(sums, opened(Scripted(TEXTS)), tmp_path / "out")
            return super().stream(requests)

    run(sums, opened(Meanwhile(TEXTS)), tmp_path / "out")
    assert len(read_samples(tmp_path / "out")) == 24


def test_samples_that_a_kill_left_without_a_verdict_are_graded(sums, tmp_path):
    with pytest.raises(UserError):
        run(sums, opened(Scripted(TEXTS, 9)), tmp_path / "out")
    assert all("correct" not in json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").open())
    resumed = run(sums, opened(Scripted(TEXTS)), tmp_path / "out")
    assert resumed["pass@1"] == run(sums, opened(Scripted(TEXTS)), tmp_path / "whole")["pass@1"]


def test_failed_samples_are_tried_again(sums, tmp_path):
    broken = {**TEXTS, 2: ["failed", "\\boxed{1}", "\\boxed{4}", "hm"]}
    with pytest.raises(
        UserError, match=r"1 samples failed, the first one with: failed\. 23 finished samples are saved"
    ):
        run(sums, opened(Scripted(broken)), tmp_path / "out")
    again = Scripted(TEXTS)
    run(sums, opened(again), tmp_path / "out")
    assert again.asked == [(2, 0)]


def test_a_full_disk_is_said_in_a_sentence(sums, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*0 finished samples are saved"):
        run(sums, opened(Scripted(TEXTS)), tmp_path / "out")


def test_text_that_is_no_unicode_is_kept(sums, tmp_path):
    run(sums, opened(Scripted({**TEXTS, 0: ["\ud800 \\boxed{0}"] * 4})), tmp_path / "out")
    assert read_samples(tmp_path / "out")[0]["completion"] == "? \\boxed{0}"


def test_more_k_than_samples_is_refused(sums, tmp_path):
    with pytest.raises(UserError, match="k is 8, but there are 4 samples"):
        run(sums, opened(Scripted(TEXTS)), tmp_path / "out", ks=(8,))


def problem(index, length):
    return BenchmarkProblem(index, f"p{index}", "x", "x" * length, "1")


def test_answers_get_what_the_prompt_leaves_of_the_context():
    protocol = protocol_for(find_task("x.jsonl"), num_samples=2, max_new_tokens=90)
    asks = plan([problem(0, 5), problem(1, 40)], opened(None, context=100), protocol)
    assert {ask.problem.index: ask.max_tokens for ask in asks} == {0: 90, 1: 60}
    with pytest.raises(UserError, match="problem p0: its prompt has 100 tokens"):
        plan([problem(0, 100)], opened(None, context=100), protocol)


def test_batches_hold_every_sample_once_within_the_budget():
    protocol = protocol_for(find_task("x.jsonl"), num_samples=5, max_new_tokens=20)
    asks = plan([problem(i, 3 * i + 1) for i in range(12)], opened(None, budget=100), protocol)
    keys = [key for block in blocks(asks, 100) for ask in block for key in ask.keys]
    assert sorted(keys) == [(i, j) for i in range(12) for j in range(5)]
    for block in blocks(asks, 100):
        width = max(ask.prompt_tokens + ask.max_tokens for ask in block)
        assert len(block) == 1 or sum(ask.count for ask in block) * width <= 100


def test_no_two_requests_share_a_seed():
    protocol = protocol_for(find_task("x.jsonl"), num_samples=5, max_new_tokens=20)
    asks = plan([problem(i, 3) for i in range(4)], opened(None), protocol)
    assert len({ask.seed for ask in asks}) == len(asks) == 4 * 5


def test_seeds_differ_between_problems_samples_and_runs():
    seeds = {request_seed(s, i, f) for s in range(4) for i in range(20) for f in range(20)}
    assert len(seeds) == 4 * 20 * 20


@pytest.fixture(params=["transformers", "native"])
def tiny(tiny_model, request):
    return lambda: open_engine(EngineOptions(str(tiny_model), engine=request.param, max_tokens_per_batch=400))


def test_a_resumed_run_of_a_real_model_ends_like_an_uninterrupted_one(sums, tmp_path, tiny):
    options = {"num_samples": 3, "max_new_tokens": 24, "temperature": 1.0}
    whole = run(sums, tiny(), tmp_path / "whole", **options)
    dying = tiny()
    stream, served = dying.engine.stream, []

    def until_it_dies(requests):
        for finished in stream(requests):
            if len(served) == 4:
                raise RuntimeError("killed")
            served.append(finished)
            yield finished

    dying.engine.stream = until_it_dies
    with pytest.raises(UserError, match="killed"):
        run(sums, dying, tmp_path / "out", **options)
    resumed = run(sums, tiny(), tmp_path / "out", **options)
    assert without_time(resumed) == without_time(whole)
    assert pq.read_table(tmp_path / "out" / "samples.parquet").equals(
        pq.read_table(tmp_path / "whole" / "samples.parquet")
    )


def test_samples_of_a_problem_share_its_prefill_on_the_native_engine(sums, tmp_path, tiny_model, monkeypatch):
    """Each is a request of its own, so that a resumed run asks only for what is missing."""
    admit, prefilled = Scheduler.admit, []

    def counting(self, steps):
        admitted = admit(self, steps)
        prefilled.extend(prefill.rollout.group.key for prefill in admitted.prefills)
        return admitted

    monkeypatch.setattr(Scheduler, "admit", counting)
    engine = open_engine(EngineOptions(str(tiny_model), engine="native"))
    run(sums, engine, tmp_path / "out", num_samples=3, max_new_tokens=24, temperature=1.0)
    rows = read_samples(tmp_path / "out")
    assert len(rows) == 3 * len(set(prefilled)) == 3 * len(prefilled)
    assert len({row["completion"] for row in rows}) > len(prefilled)


def test_the_journal_counts_the_seconds_of_all_parts(tmp_path):
    settings = {"a": 1}
    row = dict.fromkeys(store.SCHEMA.names) | {"index": 0, "sample": 0, "completion": "8"}
    SampleStore(tmp_path, settings).append([row], 2.5)
    SampleStore(tmp_path, settings).append([row | {"sample": 1}], 1.5)
    assert SampleStore(tmp_path, settings).seconds == 4


def test_a_kill_between_the_table_and_the_end_of_the_journal_counts_no_second_twice(tmp_path, monkeypatch):
    saved = SampleStore(tmp_path, {"a": 1})
    saved.append([dict.fromkeys(store.SCHEMA.names) | {"index": 0, "sample": 0, "completion": "8"}], 2.5)
    monkeypatch.setattr(journal.Journal, "clear", lambda self: None)
    saved.finish({})
    assert SampleStore(tmp_path, {"a": 1}).seconds == 2.5


def without_time(results):
    return {key: value for key, value in results.items() if key != "seconds"}
