import json
import logging

import pyarrow as pa
import pytest
import torch
import yaml

from open_r1.errors import UserError
from open_r1.report.environment import command_line
from open_r1.report.recorder import RunRecorder, read_metrics, read_rollouts


def row(completion="<think>1</think>", **changes):
    return {
        "prompt": "1+1",
        "gold": "2",
        "completion": completion,
        "n_tokens": 3,
        "finish_reason": "stop",
        "reward": 1.0,
        "advantage": 0.5,
        **changes,
    }


def started(folder, resume_step=0, **config):
    recorder = RunRecorder(folder, config, is_main=True)
    recorder.start(resume_step)
    return recorder


def run_to(folder, step, recorder=None, first=1):
    recorder = recorder or started(folder)
    for number in range(first, step + 1):
        recorder.log_rollouts(number, [row(f"step {number}")])
        recorder.log_metrics(number, {"loss": 1 / number})
    return recorder


def test_a_killed_run_resumed_reads_like_one_that_was_never_killed(tmp_path):
    run_to(tmp_path / "whole", 6)
    run_to(tmp_path / "killed", 5)
    with (tmp_path / "killed/run/metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    (tmp_path / "killed/run/rollouts/step-000006.parquet.tmp").write_bytes(b"half")

    run_to(tmp_path / "killed", 6, recorder=started(tmp_path / "killed", resume_step=3), first=4)

    whole, killed = tmp_path / "whole/run", tmp_path / "killed/run"
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    assert read_rollouts(whole).equals(read_rollouts(killed))
    assert sorted(p.name for p in (killed / "rollouts").iterdir()) == [f"step-{n:06d}.parquet" for n in range(1, 7)]


def test_starting_anew_keeps_nothing_of_an_earlier_run(tmp_path):
    recorder = run_to(tmp_path, 2)
    recorder.log_metrics(0, {"eval_loss": 1.0})
    started(tmp_path)
    assert read_metrics(tmp_path / "run") == []
    assert read_rollouts(tmp_path / "run").num_rows == 0


def test_changed_settings_are_named_with_both_values_on_resume_only(tmp_path, caplog):
    started(tmp_path, learning_rate=1e-6, beta=0.0, output_dir="a", logging_steps=1, save_steps=10)
    again = RunRecorder(
        tmp_path, {"learning_rate": 2e-6, "beta": 0.0, "output_dir": "b", "logging_steps": 5}, is_main=True
    )
    with caplog.at_level(logging.WARNING):
        note = again.start(resume_step=4)
    assert note is not None and "learning_rate (was 1e-06, now 2e-06)" in note
    for same in ("beta", "output_dir", "logging_steps", "save_steps"):
        assert same not in note
    assert note in caplog.text
    assert again.start(resume_step=4) is None
    assert RunRecorder(tmp_path, {"beta": 1.0}, is_main=True).start(resume_step=0) is None


def test_metrics_are_strict_json_even_for_tensors_and_nan(tmp_path):
    started(tmp_path).log_metrics(
        1, {"loss": torch.tensor(0.5), "reward": float("nan"), "grad_norm": float("inf"), "note": "é"}
    )
    line = (tmp_path / "run/metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": 0.5,
        "reward": None,
        "grad_norm": None,
        "note": "é",
    }


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    recorder = run_to(tmp_path, 1)
    path = tmp_path / "run/metrics.jsonl"
    path.write_text("oops\n" + path.read_text())
    recorder.log_metrics(2, {})
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1"):
        read_metrics(tmp_path / "run")


def test_rollouts_keep_text_exactly_and_rewards_that_do_not_apply_are_null(tmp_path):
    recorder = started(tmp_path)
    text = "hf_abcdefghijklmnopqrstuvwxyz \n<answer>\u2028é</answer>"
    recorder.log_rollouts(
        2,
        [
            row(text, **{"reward/accuracy": 1.0, "reward/code": None}),
            row(prompt=[{"role": "user", "content": "1+1"}], gold=None, **{"reward/accuracy": float("nan")}),
        ],
    )
    recorder.log_rollouts(3, [row("half a \ud83d", **{"reward/format": 1.0})])
    assert read_rollouts(tmp_path / "run", step=3)["completion"].to_pylist() == ["half a ?"]
    rows = read_rollouts(tmp_path / "run", step=2).to_pylist()
    assert rows[0]["completion"] == text
    assert json.loads(rows[1]["prompt"]) == [{"role": "user", "content": "1+1"}]
    assert [r["reward/accuracy"] for r in rows] == [1.0, None]
    assert [r["reward/code"] for r in rows] == [None, None]
    assert read_rollouts(tmp_path / "run", step=2).schema.field("reward/code").type == pa.float64()
    assert read_rollouts(tmp_path / "run").column("step").to_pylist() == [2, 2, 3]
    with pytest.raises(ValueError, match="completoin"):
        recorder.log_rollouts(4, [{"completoin": "x"}])


def test_missing_steps_and_folders_are_said_in_a_sentence(tmp_path):
    run_to(tmp_path, 3)
    with pytest.raises(UserError, match="no rollouts of step 9: it has steps 1 to 3"):
        read_rollouts(tmp_path / "run", step=9)
    with pytest.raises(UserError, match="does not exist"):
        read_metrics(tmp_path / "elsewhere")


def test_only_the_main_process_writes(tmp_path):
    recorder = RunRecorder(tmp_path / "out", {}, is_main=False)
    recorder.start(0)
    recorder.log_metrics(1, {"loss": 1})
    recorder.log_rollouts(1, [row()])
    assert not (tmp_path / "out").exists()


def test_secrets_are_written_nowhere(tmp_path, monkeypatch):
    secret = "hf_" + "a1B2" * 8
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setattr("sys.argv", ["sft.py", "--hub_token", "s3cret", "--api-key=s3cret", f"--x={secret}"])
    started(tmp_path, hub_token="s3cret", eos_token="<|im_end|>", url="https://me:s3cret@host/x", nested=[secret])
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["eos_token"] == "<|im_end|>"
    written = "".join(p.read_text() for p in (tmp_path / "run").iterdir() if p.is_file())
    assert "s3cret" not in written and secret not in written


def test_the_environment_says_what_is_needed_to_repeat_the_run(tmp_path):
    started(tmp_path)
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert (
        environment["packages"]["torch"] == torch.__version__.split("+")[0]
        or environment["packages"]["torch"] == torch.__version__
    )
    assert {"open_r1", "commit", "python", "devices", "command"} <= environment.keys()
    assert command_line(["grpo.py", "--beta", "0"]) == ["grpo.py", "--beta", "0"]
