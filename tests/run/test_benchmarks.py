"""`benchmarks:` of the trainers: what they write, that they change nothing, and what a kill leaves."""

import json
import shutil
import threading
from types import SimpleNamespace

import pytest
import yaml
from fake_vllm import FakeVLLM
from runs import arguments, assert_same_weights, backend_env, launch, make_folder, metrics
from toys import make_model
from transformers import AutoConfig

from open_r1 import evaluate, grpo, sft
from open_r1.engine.vllm.addresses import free_port
from open_r1.errors import Interrupted, UserError
from open_r1.evaluation.store import read_samples
from open_r1.evaluation.tasks import find_task
from open_r1.run import benchmarks

MAIN = {"sft": sft.main, "grpo": grpo.main}
EVERY = {"benchmarks_every_n_steps": 2, "benchmarks_num_samples": 2, "benchmarks_max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("toy"))
    rows = [{"problem": f"{i} + {i}?", "answer": str(2 * i)} for i in range(5)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder, task, out, **options):
    MAIN[task](arguments(folder, task, out, benchmarks=folder / "sums.jsonl", **options))
    return out / "evaluation"


def greedy_answers(folder, model, limit):
    """What the model in a folder answers by itself."""
    words = ["--model", str(model), "--tasks", str(folder / "sums.jsonl"), "--output", str(model / "alone")]
    limits = ["--protocol", "greedy", "--max-new-tokens", str(limit), "--seed", "7"]
    evaluate.main([*words, *limits, "--engine", "transformers"])
    return [row["completion"] for row in read_samples(model / "alone" / "sums")]


def lines_of(out):
    return [line for line in metrics(out) if "eval_sums_pass@1" in line]


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_they_run_while_training_and_on_the_final_model_and_change_nothing(folder, tmp_path, task):
    evaluation = run(folder, task, tmp_path / "with", **EVERY)
    assert "watchdog" not in [thread.name for thread in threading.enumerate()], "it would end the upload that follows"
    assert sorted(path.name for path in evaluation.iterdir()) == ["step-000002", "sums"]
    for path in (evaluation / "step-000002" / "sums", evaluation / "sums"):
        rows = read_samples(path)
        assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(5) for j in range(2)]
        assert max(row["n_tokens"] for row in rows) <= 6
    assert [line["step"] for line in lines_of(tmp_path / "with")] == [2, 4]
    results = json.loads((evaluation / "sums" / "results.json").read_text())
    assert lines_of(tmp_path / "with")[1]["eval_sums_mean_tokens"] == results["mean_tokens"]
    MAIN[task](arguments(folder, task, tmp_path / "without"))
    training = [line for line in metrics(tmp_path / "with") if "eval_sums_pass@1" not in line]
    assert training == metrics(tmp_path / "without")
    assert_same_weights(tmp_path / "with", tmp_path / "without")


def test_the_final_samples_are_those_of_the_saved_model(folder, tmp_path):
    options = {"benchmarks_num_samples": 1, "benchmarks_protocol": "greedy", "benchmarks_max_new_tokens": 8}
    rows = read_samples(run(folder, "sft", tmp_path / "out", **options) / "sums")
    assert [row["completion"] for row in rows] == greedy_answers(folder, tmp_path / "out", 8)


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_the_native_engine_answers_as_the_saved_model(folder, tmp_path, task):
    greedily = {**EVERY, "benchmarks_protocol": "greedy", "benchmarks_num_samples": 1, "benchmarks_max_new_tokens": 8}
    evaluation = run(folder, task, tmp_path / "out", engine="native", **greedily)
    for path, model in ((evaluation, ""), (evaluation / "step-000002", "checkpoint-2")):
        greedy = greedy_answers(folder, tmp_path / "out" / model, 8)
        assert [row["completion"] for row in read_samples(path / "sums")] == greedy
        assert json.loads((path / "sums" / "results.json").read_text())["engine"] == "native"
    if task == "sft":
        MAIN[task](arguments(folder, task, tmp_path / "without"))
        assert_same_weights(tmp_path / "out", tmp_path / "without")


def test_a_run_that_goes_on_from_an_earlier_checkpoint_forgets_what_came_after(folder, tmp_path):
    options = {**EVERY, "benchmarks_every_n_steps": 1, "save_steps": 1, "save_total_limit": 9}
    evaluation = run(folder, "sft", tmp_path / "out", **options)
    lines, names = metrics(tmp_path / "out"), ("step-000002", "step-000003")
    before = {name: read_samples(evaluation / name / "sums") for name in names}
    for step in (3, 4):
        shutil.rmtree(tmp_path / "out" / f"checkpoint-{step}")
    (evaluation / "step-000003" / "sums" / "samples.parquet").write_bytes(b"of another run")
    run(folder, "sft", tmp_path / "out", **options)
    assert {name: read_samples(evaluation / name / "sums") for name in names} == before
    assert metrics(tmp_path / "out") == lines


@pytest.mark.parametrize("kill_at", [1, 2])
def test_a_kill_in_a_benchmark_is_continued_there(folder, tmp_path, monkeypatch, kill_at):
    options = {**EVERY, "max_tokens_per_decode": 60}
    whole = run(folder, "grpo", tmp_path / "whole", **options)
    sample, calls = benchmarks.run_benchmark, []

    def dying(benchmark, console):
        calls.append(benchmark)
        if len(calls) == kill_at:
            stream, served = benchmark.engine.engine.stream, []

            def until_it_dies(requests):
                for finished in stream(requests):
                    if served:
                        raise RuntimeError("killed")
                    served.append(finished)
                    yield finished

            monkeypatch.setattr(benchmark.engine.engine, "stream", until_it_dies)
        return sample(benchmark, console)

    monkeypatch.setattr(benchmarks, "run_benchmark", dying)
    with pytest.raises(UserError, match=r"killed\. [1-9] finished samples are saved"):
        run(folder, "grpo", tmp_path / "out", **options)
    monkeypatch.setattr(benchmarks, "run_benchmark", sample)
    evaluation = run(folder, "grpo", tmp_path / "out", **options)
    for name in ("step-000002/sums", "sums"):
        assert read_samples(evaluation / name) == read_samples(whole / name)
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "out", tmp_path / "whole")


def test_a_finished_run_is_not_evaluated_again_and_a_longer_one_keeps_the_earlier_samples(folder, tmp_path):
    evaluation = run(folder, "sft", tmp_path / "out", **EVERY)
    first = read_samples(evaluation / "sums")
    run(folder, "sft", tmp_path / "out", **EVERY)
    assert len(lines_of(tmp_path / "out")) == 2
    run(folder, "sft", tmp_path / "out", **EVERY, max_steps=6)
    assert read_samples(evaluation / "earlier-1" / "sums") == first
    assert (evaluation / "sums" / "results.json").exists()


def test_two_processes_share_the_problems(folder, tmp_path):
    argv = arguments(folder, "grpo", tmp_path / "two", benchmarks=folder / "sums.jsonl", **EVERY, max_steps=2)
    launch("grpo", argv, processes=2)
    rows = read_samples(tmp_path / "two" / "evaluation" / "sums")
    assert [(row["index"], row["sample"]) for row in rows] == [(i, j) for i in range(5) for j in range(2)]
    assert not list((tmp_path / "two" / "evaluation" / "sums").glob("share-*"))
    assert len(lines_of(tmp_path / "two")) == 1


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_share_begins_when_the_first_process_has_looked_at_the_folder(folder, tmp_path, monkeypatch, is_complete):
    """The first process moves samples with other settings, and the shares in their folder; complete ones stay."""
    shares, begun = [], []

    class Ranks:
        def max(self, value):
            begun.append(len(shares))
            return float(is_complete) if len(begun) == 1 else 1.0

    trainer = SimpleNamespace(rank=1, world_size=2, ranks=Ranks())
    loaded = SimpleNamespace(task=find_task(str(folder / "sums.jsonl")), problems=[0, 1, 2], protocol=None)
    this = SimpleNamespace(trainer=trainer, console=None)
    this._prepare = lambda loaded, problems, engine, share: shares.append((share.name, problems))
    monkeypatch.setattr(benchmarks, "run_benchmark", lambda benchmark, console: None)
    assert benchmarks.Benchmarks._run_one(this, loaded, None, tmp_path) == (None if shares else {})
    assert begun[0] == 0
    assert shares == ([] if is_complete else [("share-1-of-2", [1])])


@pytest.mark.parametrize(
    "backend", [pytest.param("fsdp", marks=pytest.mark.slow), pytest.param("zero3", marks=pytest.mark.deepspeed)]
)
def test_sft_where_each_process_has_a_part_of_the_model(folder, tmp_path, backend):
    options = {**EVERY, "benchmarks_protocol": "greedy", "benchmarks_num_samples": 1, "lr_scheduler_type": "constant"}
    argv = arguments(folder, "sft", tmp_path / "two", benchmarks=folder / "sums.jsonl", **options)
    launch("sft", argv, processes=2, env=backend_env(backend))
    evaluation = tmp_path / "two" / "evaluation"
    for path, model in ((evaluation, ""), (evaluation / "step-000002", "checkpoint-2")):
        greedy = greedy_answers(folder, tmp_path / "two" / model, 6)
        assert [row["completion"] for row in read_samples(path / "sums")] == greedy
    assert [line["step"] for line in lines_of(tmp_path / "two")] == [2, 4]


def fake(folder, max_model_len=4096):
    config = AutoConfig.from_pretrained(folder / "model")
    return FakeVLLM(
        shape=[config.hidden_size, config.num_hidden_layers, config.vocab_size], max_model_len=max_model_len
    )


@pytest.mark.parametrize("staleness", [0, 1])
def test_vllm_servers_write_them_with_the_weights_of_the_step(folder, tmp_path, staleness):
    server = fake(folder)
    served = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_base_url": server.url, "vllm_group_port": 0}
    options = {**EVERY, **served, "max_staleness": staleness, "vllm_server_timeout": 1}
    evaluation = run(folder, "grpo", tmp_path / "out", **options)
    assert server.receiver.weights_version == 4
    server.die()
    for path in (evaluation / "step-000002" / "sums", evaluation / "sums"):
        assert [(row["index"], row["sample"]) for row in read_samples(path)] == [
            (i, j) for i in range(5) for j in (0, 1)
        ]
    asked = [body for body in server.bodies if body["sampling"]["max_tokens"] == 6]
    assert len(asked) == 2 * 10 and all(body["sampling"]["logprobs"] is None for body in asked)


def test_an_engine_has_room_for_answers_longer_than_the_training_ones(folder, tmp_path):
    server = fake(folder, max_model_len=300)
    served = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_base_url": server.url, "vllm_group_port": 0}
    with pytest.raises(UserError, match=r"takes 300 .* or benchmarks_max_new_tokens"):
        run(folder, "grpo", tmp_path / "out", **served, vllm_server_timeout=1, benchmarks_max_new_tokens=400)
    server.die()


def test_a_prompt_that_the_engine_will_have_no_room_for_is_said_before_training(folder, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"problem": "1 + 1? " * 30, "answer": "2"}) + "\n")
    server = fake(folder)
    served = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_base_url": server.url, "vllm_group_port": 0}
    options = {**served, "vllm_max_model_length": 100, "benchmarks": tmp_path / "long.jsonl"}
    with pytest.raises(UserError, match=r"a prompt of long has \d+ tokens, and vllm_max_model_length is 100: raise it"):
        grpo.main(arguments(folder, "grpo", tmp_path / "out", **options))
    server.die()
    assert not server.bodies


@pytest.mark.vllm
def test_a_vllm_server_on_loopback_writes_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "wide")
    folder = tmp_path / "wide"
    make_model(folder / "model", arch="llama", hidden_size=128)  # vLLM has no narrower heads on a CPU
    vllm = {"engine": "vllm", "vllm_server_port": free_port(8400), "vllm_group_port": 0, "vllm_enforce_eager": "true"}
    greedily = {**EVERY, "benchmarks_protocol": "greedy", "benchmarks_num_samples": 1, "benchmarks_max_new_tokens": 40}
    evaluation = run(folder, "grpo", tmp_path / "out", **greedily, **vllm)
    for path, model in ((evaluation, ""), (evaluation / "step-000002", "checkpoint-2")):
        greedy = greedy_answers(folder, tmp_path / "out" / model, 40)
        assert [row["completion"] for row in read_samples(path / "sums")] == greedy


class Signals:
    received = None

    def listen(self):
        self.received = None

    def restore(self):
        pass

    ignore = restore


@pytest.mark.parametrize(
    ("every", "expected"), [(2, "Stopped after step 3"), (None, "Stopped during the benchmarks of the trained model")]
)
def test_a_signal_does_not_wait_for_a_benchmark(folder, tmp_path, monkeypatch, every, expected):
    options = {**EVERY, "benchmarks_every_n_steps": every} if every else {"benchmarks_num_samples": 1}
    signals, sample = Signals(), benchmarks.run_benchmark
    monkeypatch.setattr("open_r1.run.run.StopSignals", lambda: signals)

    def signalled(*args):
        signals.received = "SIGTERM"
        return sample(*args)

    with monkeypatch.context() as patch:
        patch.setattr(benchmarks, "run_benchmark", signalled)
        with pytest.raises(Interrupted, match=expected):
            run(folder, "sft", tmp_path / "out", **options)
    assert not lines_of(tmp_path / "out")
    evaluation = run(folder, "sft", tmp_path / "out", **options)
    assert len(lines_of(tmp_path / "out")) == 1
    assert (evaluation / "sums" / "results.json").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"benchmarks": "aime23"}, "there is no task 'aime23'"),
        ({"benchmarks": "aime24", "benchmarks_data_dir": "nowhere"}, "data_dir is 'nowhere'"),
        ({"benchmarks_every_n_steps": 0}, "benchmarks_every_n_steps is 0"),
        ({"benchmarks_every_n_steps": 2}, "benchmarks is empty"),
    ],
)
def test_bad_options_stop_before_training(folder, tmp_path, options, expected):
    with pytest.raises(UserError, match=expected):
        sft.main(arguments(folder, "sft", tmp_path / "out", **options))
    assert not (tmp_path / "out" / "run").exists()


def test_the_system_prompt_is_that_of_the_training(folder, tmp_path):
    evaluation = run(folder, "sft", tmp_path / "out", **EVERY, system_prompt="Think first.")
    assert (
        json.loads((evaluation / "sums" / "settings.json").read_text())["protocol"]["system_prompt"] == "Think first."
    )
    config = yaml.safe_load((tmp_path / "out" / "run" / "config.yaml").read_text())
    assert config["benchmarks"] == [str(folder / "sums.jsonl")]
