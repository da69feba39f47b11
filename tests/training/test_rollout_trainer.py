"""Rounds written ahead by an engine of their own, and groups without signal replaced."""

import shutil
import threading
import time

import numpy as np
import pytest
import torch
from runs import arguments, assert_same_weights, launch, make_folder, metrics
from transformers import AutoTokenizer

from open_r1 import grpo
from open_r1.engine.protocol import Completion, Sampling
from open_r1.errors import UserError
from open_r1.report.recorder import RunRecorder, read_rollouts
from open_r1.training.dynamic_sampling import replace_groups, spare_rows
from open_r1.training.grpo import GRPOTrainer
from open_r1.training.rollouts import sample_groups, start_grading
from open_r1.training.rounds import Round

AHEAD = {"max_steps": 7, "save_steps": 3, "save_total_limit": 9, "reward_funcs": "odd_rewards:vowels"}


class FakeServer:
    """Writes tokens that depend on the request's seed and on the weights that it was given last."""

    def __init__(self, folder, delay=0.0):
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self.delay = delay
        self.version, self.weights, self.streams = 0, 0, 0
        self.updates, self.threads, self.rounds = [], [], []

    def stream(self, requests):
        self.streams += 1
        self.threads.append(threading.current_thread().name)
        self.rounds.append([])
        for request in requests:
            time.sleep(self.delay)
            self.rounds[-1].append(request.prompt)
            group = []
            for i in range(request.sampling.n):
                rng = np.random.default_rng([request.sampling.seed, i, self.weights])
                ids = rng.integers(10, 300, rng.integers(2, 9)).tolist()
                text = self.tokenizer.decode(ids)
                group.append(Completion(text, ids, [-5.5] * len(ids), "stop", self.version))
            yield request.id, group
        self.streams -= 1

    def update_weights(self, named_tensors, version):
        assert self.streams == 0, "weights changed under a generation"
        total = sum(tensor.double().abs().sum().item() for _, tensor in named_tensors)
        self.version, self.weights = version, int(total * 1e6)
        self.updates.append(version)

    def sleep(self):
        raise AssertionError("a server does not sleep")

    def wake(self):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def run(folder, out, monkeypatch, engine=None, **options):
    engine = engine or FakeServer(folder)
    monkeypatch.setattr("open_r1.run.trainers.open_policy_engine", lambda *args: engine)
    grpo.main(arguments(folder, "grpo", out, **AHEAD | options))
    return metrics(out), engine


@pytest.mark.parametrize(
    ("staleness", "ages", "updates"),
    [(1, [0, 1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]), (2, [0, 1, 2, 1, 2, 1, 2], [0, 2, 4])],
)
def test_rounds_ahead_have_known_ages_and_the_prompts_of_their_steps(
    folder, tmp_path, monkeypatch, staleness, ages, updates
):
    lines, engine = run(folder, tmp_path / "ahead", monkeypatch, max_staleness=staleness)
    assert [line["sampling/staleness"] for line in lines] == ages
    assert [line["sampling/stale_ratio"] for line in lines] == [float(age > 0) for age in ages]
    assert engine.updates == updates
    assert engine.threads == ["MainThread"] + ["rollouts"] * 6
    assert all(line["grad_norm"] > 0 for line in lines)
    monkeypatch.setattr(FakeServer, "sleep", lambda self: None)
    _, strict = run(folder, tmp_path / "strict", monkeypatch)
    assert engine.rounds == strict.rounds
    assert strict.updates == list(range(7))


def test_no_two_prompts_of_a_run_share_a_seed(folder, tmp_path, monkeypatch):
    seeds = []

    class Noting(FakeServer):
        def stream(self, requests):
            seeds.extend(request.sampling.seed for request in requests)
            yield from super().stream(requests)

        def sleep(self):
            pass

    run(folder, tmp_path / "out", monkeypatch, Noting(folder), save_strategy="no")
    assert len(set(seeds)) == len(seeds) == 7 * 2


def test_writing_ahead_overlaps_training(folder, tmp_path, monkeypatch):
    """Each round waits in the middle of being written until the step before it trains, and that step waits for it."""
    writing, training, steps = threading.Semaphore(0), threading.Semaphore(0), []

    class Meeting(FakeServer):
        def stream(self, requests):
            return super().stream(self.meet(requests) if self.rounds else requests)

        def meet(self, requests):
            writing.release()
            assert training.acquire(timeout=60)
            yield from requests

    step = GRPOTrainer.pack_loss

    def pack_loss(self, pack, out):
        steps.append(len(steps) == 6 or writing.acquire(timeout=60))
        training.release()
        return step(self, pack, out)

    monkeypatch.setattr(GRPOTrainer, "pack_loss", pack_loss)
    run(folder, tmp_path / "out", monkeypatch, Meeting(folder), max_staleness=1, save_strategy="no")
    assert steps == [True] * 7


@pytest.mark.parametrize("staleness", [1, 2])
def test_a_run_with_rounds_ahead_continues_exactly(folder, tmp_path, monkeypatch, staleness):
    options = {"max_staleness": staleness, "num_iterations": 1}
    whole, _ = run(folder, tmp_path / "out", monkeypatch, **options)
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    for step in (6, 7):
        shutil.rmtree(tmp_path / f"again/checkpoint-{step}", ignore_errors=True)
    again, engine = run(folder, tmp_path / "again", monkeypatch, **options)
    assert again == whole
    assert engine.updates == ([3, 4, 5] if staleness == 1 else [4])
    assert_same_weights(tmp_path / "out", tmp_path / "again")
    assert read_rollouts(tmp_path / "out/run").equals(read_rollouts(tmp_path / "again/run"))


def test_what_the_engine_raises_in_its_thread_ends_the_run(folder, tmp_path, monkeypatch):
    class Dying(FakeServer):
        def stream(self, requests):
            if len(self.threads) == 2:
                raise UserError("the server is gone")
            yield from super().stream(requests)

    with pytest.raises(UserError, match="the server is gone"):
        run(folder, tmp_path / "out", monkeypatch, Dying(folder), max_staleness=1)
    assert len(metrics(tmp_path / "out")) == 2


def test_a_reward_that_fails_on_a_round_ahead_leaves_its_rollouts(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="broken"):
        run(folder, tmp_path / "out", monkeypatch, max_staleness=1, reward_funcs="odd_rewards:broken_at_step_3")
    assert len(read_rollouts(tmp_path / "out/run", 3)) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_staleness": 1}, "max_staleness is 1.*engine to vllm"),
        ({"max_staleness": -1}, "max_staleness is -1"),
        ({"max_staleness": 1, "filter_groups": "true"}, "filter_groups is true.*max_staleness 0"),
        ({"max_staleness": 1, "vllm_importance_sampling_correction": "false"}, "false, which stale rollouts need"),
        ({"filter_groups": "true", "max_num_gen_batches": 0}, "max_num_gen_batches is 0"),
    ],
)
def test_combinations_that_cannot_work_are_refused(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        grpo.main(arguments(folder, "grpo", tmp_path / "out", **options))


# Dynamic sampling

FILTER = {"filter_groups": "true", "reward_funcs": "odd_rewards:some_equal", "max_steps": 4, "save_steps": 2}


def test_groups_without_signal_are_replaced_by_other_prompts(folder, tmp_path):
    grpo.main(arguments(folder, "grpo", tmp_path / "out", **FILTER))
    lines = metrics(tmp_path / "out")
    replaced = [int(line["dynamic_sampling/replaced_groups"]) for line in lines]
    assert sum(replaced) > 0
    for line, count in zip(lines, replaced, strict=True):
        assert (count > 0) == (line["frac_reward_zero_std"] > 0)
        rows = read_rollouts(tmp_path / "out/run", line["step"]).to_pylist()
        kept, discarded = rows[:8], rows[8:]
        assert len(discarded) == 4 * count
        assert all(row["advantage"] == 0 and row["reward"] == 0.5 for row in discarded)
        assert len({row["prompt"] for row in rows}) == 2 + count
        assert any(row["advantage"] != 0 for row in kept[:4])
        assert any(row["advantage"] != 0 for row in kept[4:])


def test_two_processes_replace_the_same_groups(folder, tmp_path):
    launch("grpo", arguments(folder, "grpo", tmp_path / "two", **FILTER), processes=2)
    grpo.main(arguments(folder, "grpo", tmp_path / "one", **FILTER, per_device_train_batch_size=16))
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "reward", "dynamic_sampling/replaced_groups"):
            assert a[name] == pytest.approx(b[name], rel=2e-3, abs=1e-6)
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)


def test_a_run_with_replaced_groups_continues_exactly(folder, tmp_path):
    grpo.main(arguments(folder, "grpo", tmp_path / "out", **FILTER))
    whole = metrics(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/checkpoint-4")
    grpo.main(arguments(folder, "grpo", tmp_path / "out", **FILTER))
    assert metrics(tmp_path / "out") == whole


def test_refilling_stops_at_its_cap_and_when_no_prompt_is_left(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeServer, "sleep", lambda self: None)
    options = {"filter_groups": "true", "reward_funcs": "odd_rewards:all_equal", "max_steps": 1}
    lines, engine = run(folder, tmp_path / "cap", monkeypatch, **options, max_num_gen_batches=3)
    assert [len(prompts) for prompts in engine.rounds] == [2, 2, 2]
    assert lines[0]["dynamic_sampling/replaced_groups"] == 4
    _, engine = run(folder, tmp_path / "left", monkeypatch, **options, max_num_gen_batches=99)
    assert [len(prompts) for prompts in engine.rounds] == [2] * 12  # all 24 prompts


def test_spare_rows_are_all_others_in_an_order_of_the_round():
    spare = spare_rows(20, [3, 5], seed=1, number=4)
    assert sorted(spare) == [i for i in range(20) if i not in (3, 5)]
    assert spare == spare_rows(20, [3, 5], seed=1, number=4)
    assert spare != spare_rows(20, [3, 5], seed=1, number=5)


def test_replaced_groups_take_the_place_of_the_old():
    def written(prompts, value):
        completion = Completion(str(value), [value], None, "stop", 0)
        rewards = torch.full((2 * len(prompts), 1), float(value))
        return Round([{"prompt": p} for p in prompts], [[completion] * 2 for _ in prompts], rewards)

    old = written(["a", "b", "c"], 1)
    removed = replace_groups(old, [0, 2], written(["d", "e"], 2))
    assert [p["prompt"] for p in old.prompts] == ["d", "b", "e"]
    assert old.rewards.flatten().tolist() == [2, 2, 1, 1, 2, 2]
    assert [group[0].text for group in old.completions] == ["2", "1", "2"]
    assert [p["prompt"] for p in removed.prompts] == ["a", "c"]
    assert removed.rewards.flatten().tolist() == [1] * 4


def test_rollouts_are_written_while_the_step_trains_and_are_there_before_its_metrics(folder, tmp_path, monkeypatch):
    events, trained = [], threading.Event()
    write, log, step = RunRecorder.log_rollouts, RunRecorder.log_metrics, GRPOTrainer.pack_loss

    def log_rollouts(self, number, rows):
        trained.wait(30)  # on the main thread, it would wait in vain
        trained.clear()
        write(self, number, rows)
        events.append(("rollouts", number, threading.current_thread() is threading.main_thread()))

    def log_metrics(self, number, values):
        events.append(("metrics", number, True))
        log(self, number, values)

    def pack_loss(self, pack, out):
        events.append(("training", self.state.global_step + 1, True))
        trained.set()
        return step(self, pack, out)

    monkeypatch.setattr(RunRecorder, "log_rollouts", log_rollouts)
    monkeypatch.setattr(RunRecorder, "log_metrics", log_metrics)
    monkeypatch.setattr(GRPOTrainer, "pack_loss", pack_loss)
    run(folder, tmp_path / "out", monkeypatch, max_staleness=1, max_steps=2, save_strategy="no")
    parts = [("training", True), ("rollouts", False), ("metrics", True)]
    assert events == [(name, number, on_main) for number in (1, 2) for name, on_main in parts]


def test_rollouts_that_cannot_be_written_end_the_run(folder, tmp_path, monkeypatch):
    def log_rollouts(self, number, rows):
        raise OSError("no space left on the device")

    monkeypatch.setattr(RunRecorder, "log_rollouts", log_rollouts)
    with pytest.raises(OSError, match="no space left"):
        run(folder, tmp_path / "out", monkeypatch, max_staleness=1, save_strategy="no")


@pytest.mark.parametrize("tells", [True, False])
def test_completions_are_told_once_each_by_any_engine(folder, tells):
    engine = FakeServer(folder)
    if tells:
        stream, engine.on_completion = engine.stream, None

        def telling(requests):
            for name, group in stream(requests):
                for completion in group:
                    engine.on_completion(name, completion)
                yield name, group

        engine.stream = telling
    told = []
    rows = [{"prompt_ids": [i], "name": i} for i in range(3)]
    groups = sample_groups(engine, rows, Sampling(n=2), [7, 8, 9], lambda row, c: told.append((row["name"], c)))
    assert told == [(i, c) for i, group in enumerate(groups) for c in group]
    assert getattr(engine, "on_completion", None) is None


def test_grading_begins_with_what_the_reward_will_judge(monkeypatch):
    asked = []
    monkeypatch.setattr("open_r1.training.rollouts.prefetch", lambda **given: asked.append(given))
    row = {"answer": "4", "prompt_text": "2+2? <think>\n"}
    start_grading(row, Completion("four</think> 4", [1], None, "stop", 0))
    assert asked == [{"completions": ["<think>\nfour</think> 4"], "golds": ["4"]}]
