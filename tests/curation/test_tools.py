"""`open-r1 data pass-rate | mix | stats | merge | push`."""

import io
import json
import subprocess
import sys

import pytest
from datasets import load_dataset
from fake_openai import fake_server
from generation.conftest import add_up, write_sums
from rich.console import Console
from toys import make_tokenizer

from open_r1 import generate
from open_r1.curation import command, push
from open_r1.curation.rows import Report
from open_r1.errors import UserError
from open_r1.generation.run import judge_programs
from open_r1.report import hub


@pytest.fixture
def samples(jsonl):
    """What `open-r1 generate` leaves, for five problems with 0, 1, 2, 4 and no gradable right answers of 4."""
    rows = []
    for index, right in enumerate([0, 1, 2, 4, None]):
        for sample in range(4):
            correct = None if right is None else sample < right
            rows.append({"problem": f"p{index}", "answer": "1", "index": index, "sample": sample, "correct": correct})
    return jsonl(rows)


def test_pass_rate_keeps_a_band(data, samples):
    kept, report = data("pass-rate", samples, "--min", "0.2", "--max", "0.5")
    assert kept.to_list() == [
        {"problem": "p1", "answer": "1", "pass_rate": 0.25, "graded_answers": 4},
        {"problem": "p2", "answer": "1", "pass_rate": 0.5, "graded_answers": 4},
    ]
    assert report["dropped"] == {"too hard": 1, "too easy": 1, "ungradable": 1}


def test_pass_rate_samples_and_continues(data, tmp_path):
    sums = write_sums(tmp_path / "sums.jsonl", 8)
    with fake_server(answer=add_up) as server:
        words = ["--hf-dataset", sums, "--prompt-column", "problem", "--model", "m", "--vllm-server-url", server.url]
        words += ["--num-generations", "2", "--max-new-tokens", "32", "--min", "0", "--max", "0.9"]
        assert data("pass-rate", *words, "--dry-run") == (None, None)
        assert not server.bodies
        kept, _ = data("pass-rate", *words)
        assert kept["problem"] == ["6 + 1?"]
        data("pass-rate", *words, output="out2")
        assert len(server.bodies) == 32
    assert (tmp_path / "out-samples" / "run" / "summary.json").exists()
    assert "Answers of `m`, graded." in (tmp_path / "out" / "run" / "source.md").read_text()


def test_pass_rate_refuses_what_was_not_sampled(data, jsonl):
    with pytest.raises(UserError, match="no column 'index'"):
        data("pass-rate", jsonl([{"problem": "a"}]))
    with pytest.raises(UserError, match=r"min is 0\.9 and max is 0\.8"):
        data("pass-rate", jsonl([{"problem": "a"}]), "--min", "0.9")


def test_mix_takes_the_declaration_of_recipes(data, jsonl, tmp_path):
    first = jsonl([{"x": i} for i in range(10)], "a.jsonl")
    second = jsonl([{"x": 100 + i, "y": 0} for i in range(10)], "b.jsonl")
    recipe = tmp_path / "mix.yaml"
    mixture = {"datasets": [{"id": str(first), "weight": 0.5}, {"id": str(second), "columns": ["x"]}], "seed": 1}
    recipe.write_text(json.dumps({"dataset_mixture": mixture | {"test_split_size": 3}, "learning_rate": 1}))
    kept, report = data("mix", recipe)
    test = load_dataset(str(tmp_path / "out"), split="test")
    both = kept["x"][:] + test["x"][:]
    assert (len(kept), len(test)) == (12, 3)
    assert sum(x >= 100 for x in both) == 10 and len(set(both)) == 15
    assert report["train"] == 12


def test_mix_says_what_is_wrong_with_a_declaration(data, tmp_path):
    for text, expected in (("a: [", "not valid YAML"), ("a: 1", "expected `dataset_mixture`")):
        (tmp_path / "mix.yaml").write_text(text)
        with pytest.raises(UserError, match=expected):
            data("mix", tmp_path / "mix.yaml")


def test_stats_count_by_the_tokenizer(jsonl, tmp_path, capsys):
    tokenizer = make_tokenizer(tmp_path / "tiny")
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]
    path = jsonl([{"problem": "a" * n, "messages": chat} for n in (1, 2, 30)])
    command.main(["stats", str(path), "--tokenizer", str(tokenizer), "--output", str(tmp_path / "stats")])
    stats = json.loads((tmp_path / "stats" / "stats.json").read_text())
    assert stats["rows"] == 3
    assert stats["tokens"]["problem"]["min"] == 1
    assert stats["tokens"]["messages"]["min"] == stats["tokens"]["messages"]["max"] > 10
    assert (tmp_path / "stats" / "messages.svg").read_text().startswith("<svg")
    assert "p95" in capsys.readouterr().out


@pytest.fixture
def parts(tmp_path):
    """A run in three parts; the call generates one."""
    sums = write_sums(tmp_path / "sums.jsonl", 10)

    def part(i, *options):
        with fake_server(answer=add_up) as server:
            words = ["--hf-dataset", str(sums), "--prompt-column", "problem", "--model", "m", "--num-generations", "2"]
            words += ["--vllm-server-url", server.url, "--max-new-tokens", "32", "--output", str(tmp_path / "parts")]
            generate.main([*words, "--shard", f"{i}/3", *options])

    return part


def test_merged_parts_are_one_run(parts, tmp_path, capsys):
    for i in range(3):
        parts(i)
    command.main(["merge", str(tmp_path / "parts"), "--dry-run"])
    assert "3 parts, 20 rows" in capsys.readouterr().out
    command.main(["merge", str(tmp_path / "parts"), "--output", str(tmp_path / "merged")])
    rows = load_dataset(str(tmp_path / "merged"), split="train")
    assert sorted(zip(rows["index"], rows["sample"], strict=True)) == [(i, j) for i in range(10) for j in range(2)]
    assert json.loads((tmp_path / "merged" / "run" / "summary.json").read_text())["rows"] == 20


def test_a_folder_gets_its_name_with_its_card(data, jsonl, tmp_path, monkeypatch):
    """What a kill before the end leaves is not in the way of the same command."""
    rows = jsonl([{"problem": "1 + 1?"}])

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("open_r1.curation.rows.write_dataset_card", killed)
        with pytest.raises(KeyboardInterrupt):
            data("dedup", rows)
    assert not (tmp_path / "out").exists()
    data("dedup", rows)
    assert (tmp_path / "out" / "README.md").read_text().count("# out\n") == 1


def test_a_run_that_is_not_finished_is_read_with_a_warning(parts, tmp_path, data, caplog):
    parts(0)
    folder = tmp_path / "parts" / "shard-00000-of-00003"
    data("verify", folder, output="one")
    assert "not finished" not in caplog.text
    (folder / "run" / "summary.json").unlink()
    data("verify", folder, output="two")
    assert f"{folder} is not finished" in caplog.text


def test_parts_that_do_not_belong_together_are_refused(parts, tmp_path):
    parts(0)
    parts(1)
    merge = ["merge", str(tmp_path / "parts"), "--output", str(tmp_path / "merged")]
    with pytest.raises(UserError, match="shard-00002-of-00003 is missing"):
        command.main(merge)
    parts(2, "--temperature", "1")
    with pytest.raises(UserError, match=r"another temperature than the first part \(1\.0, not 0\.6\)"):
        command.main(merge)
    (tmp_path / "parts" / "shard-00001-of-00003" / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match="shard-00001-of-00003 is not finished"):
        command.main(merge)
    assert not (tmp_path / "merged").exists()


def test_push_uploads_the_finished_folder(parts, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    calls = []
    monkeypatch.setattr("open_r1.hub.why_unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo, **options: calls.append((repo, options)))
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **options: calls.append(options) or "https://there")
    parts(0)
    folder = tmp_path / "parts" / "shard-00000-of-00003"
    names = [str(path.relative_to(folder)) for path in push.uploaded(folder)]
    assert names == [
        "README.md",
        "data/train-00000.parquet",
        "run/environment.json",
        "run/settings.json",
        "run/summary.json",
    ]
    command.main(["push", str(folder), "me/traces", "--private", "--dry-run"])
    assert not calls
    command.main(["push", str(folder), "me/traces", "--private"])
    assert calls[0] == ("me/traces", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert (calls[1]["repo_id"], calls[1]["ignore_patterns"]) == ("me/traces", hub.NOT_PUSHED)
    assert "https://there" in capsys.readouterr().out


def test_push_refuses_what_is_not_finished(tmp_path):
    with pytest.raises(UserError, match=r"has no data/\*\.parquet"):
        command.main(["push", str(tmp_path), "me/traces"])


def test_a_hub_that_refuses_is_a_sentence(monkeypatch):
    import huggingface_hub

    def refuse(*words, **options):
        raise OSError("no way to the hub")

    monkeypatch.setattr("open_r1.hub.why_unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(UserError, match=r"me/traces on the hub cannot be written to \(no way to the hub\)"):
        hub.create_dataset_repo("me/traces", True)


def test_an_unknown_tool_is_named():
    done = subprocess.run([sys.executable, "-m", "open_r1.cli", "data", "verfy"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no tool 'verfy': expected one of verify" in done.stderr


@pytest.mark.parametrize("tool", command.TOOLS)
def test_every_tool_has_help_with_an_example(tool, capsys):
    with pytest.raises(SystemExit) as end:
        command.main([tool, "--help"])
    assert end.value.code == 0
    assert f"open-r1 data {tool} " in capsys.readouterr().out


def test_programs_are_judged_by_the_tests_of_their_row():
    tests = {"language": "python", "test_cases": [{"input": "1 2", "output": "3"}, {"input": "5 5", "output": "10"}]}
    right = "```python\nprint(sum(map(int, input().split())))\n```"
    answers = [(tests, right), (json.dumps(tests), right), (tests, "```python\nprint(3)\n```"), (None, right)]
    verdicts = judge_programs(answers)
    assert [verdict.correct for verdict in verdicts] == [True, True, False, None]
    assert verdicts[2].extracted == "print(3)\n"


def test_a_report_shows_reasons_and_figures_as_they_are():
    report = Report("verify", read=1, figures={"part[a]": "id[b]"})
    report.drop("same, set[c]", "row 1")
    console = Console(record=True, width=200, file=io.StringIO())
    report.show(console)
    shown = console.export_text()
    assert all(text in shown for text in ("part[a]", "id[b]", "set[c]"))
