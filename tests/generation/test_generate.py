"""`open-r1 generate` as it is typed, against servers that are slow, broken or dying, and with a real model."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from evaluation.scripted import Started, before_the_clock, opened
from fake_openai import broken_json, fake_server, hang_up, status
from generation.conftest import add_up, write_sums
from toys import DEEPSEEK_LIKE, make_model, make_tokenizer

from open_r1 import generate, grpo, sft
from open_r1.data.load import load_split
from open_r1.errors import UserError
from open_r1.generation.store import ShardStore, shard_files
from open_r1.generation.summary import summarise


def keys(folder):
    rows = load_dataset(str(folder), split="train")
    return sorted(zip(rows["index"], rows["sample"], strict=True))


def every_key(problems, samples):
    return [(i, j) for i in range(problems) for j in range(samples)]


def test_rows_are_graded_and_load(run, server, tmp_path, capsys):
    folder = run(server.url, "--num-generations", "4", "--rows-per-shard", "50", "--temperature", "0.7")
    assert keys(folder) == every_key(30, 4)
    sizes = [pq.read_metadata(path).num_rows for path in shard_files(folder)]
    assert sum(sizes) == 120 and all(size >= 50 for size in sizes[:-1]) and sizes[-1] < 120
    rows = load_dataset(str(folder), split="train").sort(["index", "sample"])
    row = rows[4 * 6]
    assert row["prompt"] == [{"role": "user", "content": "6 + 1?"}]
    assert (row["problem"], row["answer"], row["id"], row["level"]) == ("6 + 1?", "7", "s6", 0)
    assert (row["extracted"], row["correct"], row["n_tokens"], row["finish_reason"]) == ("8", False, 7, "stop")
    assert row["completion"] == add_up("6 + 1?")
    assert len(set(rows["seed"])) == 120
    figures = json.loads((folder / "run" / "summary.json").read_text())
    assert (figures["rows"], figures["right"], figures["truncated"], figures["tokens"]) == (120, 104, 0, 840)
    assert figures["problems_with_a_right_answer"] == 26
    assert "104" in capsys.readouterr().out
    assert "problems_with_a_right_answer" in (folder / "README.md").read_text()
    assert not (folder / "run" / "journal.jsonl").exists()
    assert {body["temperature"] for body in server.bodies} == {0.7}


def test_the_folder_loads_without_a_word_about_files_of_the_run_and_its_card_names_the_command(
    run, server, monkeypatch, caplog
):
    monkeypatch.setattr("sys.argv", ["/home/me/.venv/bin/open-r1", "generate", "--hf-dataset", "/home/me/sums.jsonl"])
    folder = run(server.url)
    assert len(load_split(str(folder))) == 30
    assert "not read" not in caplog.text
    assert "```bash\nopen-r1 generate --hf-dataset sums.jsonl\n```" in (folder / "README.md").read_text()


def test_options_may_stand_in_a_file(run, server, tmp_path):
    (tmp_path / "generate.yaml").write_text("num_generations: 3\nsystem_prompt: Add.\nshard: 1/3\n")
    run(server.url, "--config", str(tmp_path / "generate.yaml"), "--num_generations", "2")
    assert {body["messages"][0]["content"] for body in server.bodies} == {"Add."}
    assert keys(tmp_path / "out" / "shard-00001-of-00003") == [(i, j) for i in range(1, 30, 3) for j in range(2)]


def test_the_template_is_filled_in_and_the_system_prompt_sent(run, server):
    run(server.url, "--prompt-template", "Level {{ level }}. {{ instruction }}\n", "--system-prompt", "Add.")
    sent = sorted(body["messages"][1]["content"] for body in server.bodies)
    assert "Level 2. 8 + 1?\n" in sent
    assert {body["messages"][0]["content"] for body in server.bodies} == {"Add."}


def test_trouble_of_every_kind_costs_no_row_and_doubles_none(run):
    random.seed(0)
    faults = [None] * 5 + [status(429, **{"Retry-After": "0"}), status(500), status(503), broken_json, hang_up]
    scripts = [[random.choice(faults) for _ in range(60)] for _ in range(3)]

    def die(handler):
        handler.server.die()
        hang_up(handler)

    scripts[2][20] = die
    with (
        fake_server(*scripts[0], answer=add_up, slow=0.02) as one,
        fake_server(*scripts[1], answer=add_up, slow=0.005) as two,
        fake_server(*scripts[2], answer=add_up) as three,
    ):
        urls = ",".join(server.url for server in (one, two, three))
        folder = run(urls, "--num-generations", "4", "--input-batch-size", "8", "--retries", "9")
    assert keys(folder) == every_key(30, 4)
    assert len(three.bodies) <= 60


@pytest.mark.parametrize("signals", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_runs_continue_without_loss(run, sums, tmp_path, signals):
    with fake_server(answer=add_up, slow=0.05) as server:
        command = [sys.executable, "-m", "open_r1.generate", "--hf-dataset", sums, "--prompt-column", "problem"]
        command += ["--model", "m", "--vllm-server-url", server.url, "--output", tmp_path / "out"]
        command += ["--num-generations", "4", "--input-batch-size", "2", "--rows-per-shard", "25"]
        command += ["--max-new-tokens", "64"]
        for i in range(signals):
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
            asked = len(server.bodies)
            while process.poll() is None and len(server.bodies) < asked + 15 + 11 * i:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        folder = run(server.url, "--num-generations", "4", "--rows-per-shard", "25")
        assert keys(folder) == every_key(30, 4)
        assert len(server.bodies) <= 120 + signals * 16  # what was in flight or on its way to the disk at each kill


def test_a_finished_run_asks_nothing_again(run, server):
    run(server.url)
    asked = len(server.bodies)
    run(server.url)
    assert len(server.bodies) == asked


def test_a_kill_between_a_shard_and_its_journal_doubles_nothing(run, server, monkeypatch):
    journal = []

    def journaled(self, rows, seconds, append=ShardStore.append):
        append(self, rows, seconds)
        journal.append((self.run / "journal.jsonl").read_text())

    monkeypatch.setattr(ShardStore, "append", journaled)
    folder = run(server.url)
    (folder / "run" / "journal.jsonl").write_text(journal[-1] + '{"index": 3, "sam')
    run(server.url)
    assert keys(folder) == every_key(30, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--temperature", "1"], r"temperature was 0\.6, now 1\.0"),
        (["--num-generations", "2"], "num_generations was 1, now 2"),
        (["--prompt-template", "{{ instruction }} "], "prompt_template was"),
        (["--seed", "3"], "seed was 0, now 3"),
    ],
)
def test_changed_settings_are_refused_by_name(run, server, options, named):
    run(server.url)
    with pytest.raises(UserError, match=named):
        run(server.url, *options)


def test_changed_problems_are_refused(run, server, tmp_path):
    run(server.url)
    with pytest.raises(UserError, match="data was"):
        run(server.url, data=write_sums(tmp_path / "more.jsonl", 31))


def test_a_folder_of_something_else_is_refused(run, server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"has other content \(model\.safetensors\)"):
        run(server.url)
    assert not server.bodies


def test_a_folder_that_a_start_cut_short_left_is_taken(run, server, tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "run").mkdir()
    (tmp_path / "out" / "run" / ".lock").touch()
    assert keys(run(server.url)) == every_key(30, 1)


def test_a_damaged_shard_is_named_and_its_rows_are_generated_again_without_losing_others(run, server):
    folder = run(server.url, "--rows-per-shard", "10")
    shards = shard_files(folder)
    second = shards[1]
    kept = {path: path.read_bytes() for path in shards if path != second}
    second.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=rf"{second.name} is damaged .*delete it"):
        run(server.url, "--rows-per-shard", "10")
    second.unlink()
    assert keys(run(server.url, "--rows-per-shard", "10")) == every_key(30, 1)
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_folder_that_is_written_by_another_process_is_refused(run, server, monkeypatch):
    with fake_server(answer=add_up) as other:

        def twice(self, rows, seconds, append=ShardStore.append):
            with pytest.raises(UserError, match="another process writes there"):
                run(other.url)
            append(self, rows, seconds)

        monkeypatch.setattr(ShardStore, "append", twice)
        run(server.url)
    assert not other.bodies


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--prompt-column", "question"], "no column 'question'; there are: problem, answer, id, level"),
        (["--answer-column", "gold"], "no column 'gold'"),
        (["--prompt-template", "{{ instruction }} {{ hint }}"], "uses 'hint', which does not exist; it can use"),
        (["--prompt-template", "{{ instruction"], "is not a valid Jinja"),
        (["--prompt-template", "Solve this."], "expected Jinja"),
        (["--temperature", "0", "--num-generations", "2"], "all are the same"),
        (["--top-p", "0"], "top_p is 0"),
        (["--retries", "-1"], "retries is -1"),
        (["--hf-output-dataset", "me/x", "--shard", "0/2"], "merge the parts with"),
    ],
)
def test_bad_options_are_one_sentence(run, server, options, expected):
    with pytest.raises(UserError, match=expected):
        run(server.url, *options)
    assert not server.bodies


def test_an_empty_prompt_is_named(run, server, sums):
    sums.write_text(sums.read_text() + json.dumps({"problem": " ", "answer": "1", "id": "x", "level": 0}) + "\n")
    with pytest.raises(UserError, match=r"row 31, column problem: the prompt is empty"):
        run(server.url)
    assert not server.bodies


def test_a_prompt_beyond_the_context_is_named_or_left_out(run, sums):
    long = {"problem": "7 + 1? " + "so " * 40, "answer": "8", "id": "x", "level": 0}
    sums.write_text(json.dumps(long) + "\n" + sums.read_text())
    with fake_server(answer=add_up, context=40) as server:
        with pytest.raises(UserError, match=r"row 1, column problem: .* context of 40 tokens"):
            run(server.url)
        assert not server.bodies
        folder = run(server.url, "--skip-long-prompts", output="shorter")
        assert keys(folder) == [(i, 0) for i in range(1, 31)]
        assert {body["max_tokens"] for body in server.bodies} == {37}  # three words of a prompt, as the server counts
    assert json.loads((folder / "run" / "summary.json").read_text())["prompts_too_long"] == 1


def test_a_server_that_always_fails_ends_the_run_and_what_was_finished_stays(run, server):
    with (
        fake_server(*[None] * 10, *[status(500)] * 500, answer=add_up) as broken,
        pytest.raises(UserError, match=r"500.*10 finished rows are saved"),
    ):
        run(broken.url, "--retries", "0", "--input-batch-size", "4")
    folder = run(server.url)
    assert len(server.bodies) == 20
    assert keys(folder) == every_key(30, 1)


def test_a_refused_request_says_what_is_kept(run):
    with (
        fake_server(None, None, status(400), answer=add_up) as server,
        pytest.raises(UserError, match=r"refuses the request \(400\).*2 finished rows are saved"),
    ):
        run(server.url, "--input-batch-size", "1")


def test_a_full_disk_is_a_sentence_and_what_was_finished_stays(run, server, monkeypatch):
    def full(table, path, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("open_r1.generation.store.pq.write_table", full)
        with pytest.raises(UserError, match=r"No space left on device.*30 finished rows are saved"):
            run(server.url)
    folder = run(server.url)
    assert len(server.bodies) == 30
    assert keys(folder) == every_key(30, 1)


def test_rows_train_as_they_are(run, server, tmp_path):
    folder = run(server.url)
    model = make_model(make_tokenizer(tmp_path / "tiny"))
    common = ["--model_name_or_path", str(model), "--dataset_name", str(folder), "--output_dir", str(tmp_path / "run")]
    sft.main([*common, "--max_length", "128", "--completion_only_loss", "true", "--dry_run"])
    grpo.main([*common, "--max_completion_length", "64", "--dry_run"])


def test_each_part_of_an_array_has_a_folder_of_its_own(run, server):
    for i in range(3):
        folder = run(server.url, "--shard", f"{i}/3", "--num-generations", "2")
    assert len(server.bodies) == 60
    assert keys(folder / "shard-00001-of-00003") == [(i, j) for i in range(1, 30, 3) for j in range(2)]


def test_without_right_answers_nothing_is_graded(run, server, tmp_path):
    path = tmp_path / "open.jsonl"
    path.write_text('{"problem": "1 + 1?"}\n')
    folder = run(server.url, data=path)
    row = load_dataset(str(folder), split="train")[0]
    assert (row["correct"], row["reason"]) == (None, "the dataset has no right answers")


def test_conversations_are_prompts_too(run, server, tmp_path):
    path = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(json.dumps({"problem": [*turns, {"role": "user", "content": "2 + 3?"}], "answer": "5"}) + "\n")
    folder = run(server.url, data=path)
    assert server.bodies[0]["messages"][:2] == turns
    assert load_dataset(str(folder), split="train")[0]["correct"] is True


def test_reasoning_that_the_template_began_and_nobody_ended_gives_no_answer(sums, tmp_path):
    model = make_model(make_tokenizer(tmp_path / "tiny", chat_template=DEEPSEEK_LIKE), max_position_embeddings=256)
    words = ["--hf-dataset", sums, "--prompt-column", "problem", "--model", model, "--max-new-tokens", "64"]
    generate.main(list(map(str, [*words, "--output", tmp_path / "out", "--engine", "transformers"])))
    rows = load_dataset(str(tmp_path / "out"), split="train")
    assert any(any(c.isdigit() for c in text) for text in rows["completion"])
    assert rows["extracted"][:] == [None] * 30


def test_an_engine_starts_before_the_clock(run, monkeypatch):
    engine = Started({i: ["\\boxed{1}"] for i in range(30)})
    monkeypatch.setattr("open_r1.engine.opening.open_engine", lambda options: replace(opened(engine), name="vllm"))
    before_the_clock(monkeypatch, "open_r1.generation.run", engine)
    folder = run("http://unused")
    assert engine.asked[:3] == ["start", "clock", (0, 0)]
    run("http://unused")
    assert engine.asked.count("start") == 1  # nothing is missing
    assert keys(folder) == every_key(30, 1)


@pytest.mark.vllm
def test_vllm_writes_and_changed_weights_are_refused(sums, tmp_path):
    model = make_model(make_tokenizer(tmp_path / "tiny"), arch="llama", hidden_size=128)
    words = ["--hf-dataset", sums, "--prompt-column", "problem", "--model", model, "--max-new-tokens", "8"]
    words += ["--num-generations", "3", "--output", tmp_path / "out", "--engine", "vllm", "--enforce-eager"]
    words = list(map(str, [*words, "--max-num-seqs", "16", "--gpu-memory-utilization", "0.2"]))
    generate.main(words)
    assert keys(tmp_path / "out") == every_key(30, 3)
    make_model(model, arch="llama", hidden_size=128, seed=1)
    with pytest.raises(UserError, match="weights was"):
        generate.main(words)


def test_a_real_model_writes_and_continues(sums, tmp_path):
    model = make_model(make_tokenizer(tmp_path / "tiny"), max_position_embeddings=256)
    arguments = ["--hf-dataset", sums, "--prompt-column", "problem", "--model", model, "--max-new-tokens", "8"]
    arguments += ["--num-generations", "3", "--output", tmp_path / "out", "--engine", "transformers"]
    arguments = list(map(str, [*arguments, "--max-tokens-per-batch", "512"]))
    generate.main(arguments)
    assert keys(tmp_path / "out") == every_key(30, 3)
    rows = load_dataset(str(tmp_path / "out"), split="train")
    assert all(0 < n <= 8 for n in rows["n_tokens"])
    generate.main(arguments)
    with pytest.raises(UserError, match="max_new_tokens was 8, now 9"):
        generate.main([*arguments, "--max-new-tokens", "9"])


def test_a_length_that_a_server_does_not_report_is_left_out_of_the_mean(tmp_path):
    (tmp_path / "data").mkdir()
    columns = {"index": [0, 1, 2], "correct": [True] * 3, "extracted": ["1"] * 3, "finish_reason": ["stop"] * 3}
    pq.write_table(pa.table({**columns, "n_tokens": [4, None, 6]}), tmp_path / "data" / "train-00000.parquet")
    assert summarise(tmp_path)["mean_tokens"] == 5
