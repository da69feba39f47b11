"""What a run says of its folder: that somebody else trains there, that it is finished, what comes next."""

import fcntl
import json
import logging
import os
import shutil
from types import SimpleNamespace

import pytest
from runs import arguments, make_folder, metrics

from open_r1 import files, sft
from open_r1.configs import DataConfig, ModelConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.rewards.accuracy import accuracy_reward
from open_r1.run import run as run_module
from open_r1.run import trainers
from open_r1.run.dry_run import check_gold_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def run(folder, out, **options):
    sft.main(arguments(folder, "sft", out, **options))


def test_a_run_ends_with_its_folder_and_the_next_command_and_says_that_it_is_finished(folder, tmp_path, capfd):
    run(folder, tmp_path / "an out", max_steps=2)
    out = capfd.readouterr().out
    following = f"Next: open-r1 evaluate --model '{tmp_path}/an out' --tasks math_500"
    assert out.splitlines()[-1] == f"The model is in {tmp_path}/an out. {following}"
    assert "finished:" not in out
    run(folder, tmp_path / "an out", max_steps=2)
    said = f"This run is finished: all its 2 steps are done, and its model is in {tmp_path}/an out. To train further, "
    out = capfd.readouterr().out
    assert said + "raise max_steps; to start over, give another output_dir." in out
    assert "Continuing" not in out
    run(folder, tmp_path / "an out", max_steps=3)
    assert f"Continuing from {tmp_path}/an out/checkpoint-2, step 2 of 3." in capfd.readouterr().out
    assert [line["step"] for line in metrics(tmp_path / "an out")] == [1, 2, 3]


def test_a_run_without_checkpoints_says_that_it_begins_again(folder, tmp_path, capfd):
    run(folder, tmp_path / "out", max_steps=1, save_strategy="no")
    assert "begins again" not in capfd.readouterr().out
    run(folder, tmp_path / "out", max_steps=1, save_strategy="no")
    assert "There is no checkpoint in" in capfd.readouterr().out


def test_two_trainings_in_one_folder_are_refused_before_the_model_is_loaded(folder, tmp_path, monkeypatch):
    (tmp_path / "out/run").mkdir(parents=True)
    with (tmp_path / "out/run/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(trainers, "load_policy", lambda *args: pytest.fail("the model was loaded"))
            with pytest.raises(UserError, match="where another training run is active: give another output_dir"):
                run(folder, tmp_path / "out", max_steps=1)
    train = run_module.Run._train

    def locked(self, *args):
        with (tmp_path / "out/run/.lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return train(self, *args)

    monkeypatch.setattr(run_module.Run, "_train", locked)
    run(folder, tmp_path / "out", max_steps=1)
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"save_strategy": "no"}, "save_steps is 2, but save_strategy is no, so no checkpoint is saved"),
        ({"save_strategy": "epoch"}, "save_strategy is epoch, so a checkpoint is saved after each epoch"),
        ({"eval_steps": 3}, "eval_steps is 3, but eval_strategy is no, so it has no effect"),
    ],
)
def test_options_without_effect_are_named(folder, tmp_path, options, said, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        run(folder, tmp_path / "out", max_steps=1, **options)
    assert said in caplog.text
    run(folder, tmp_path / "out", dry_run="true", **options)
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("dry_run", ["false", "true"])
def test_dropout_of_attention_weights_is_not_left_out_without_a_word(folder, tmp_path, dry_run, caplog, capsys):
    model = shutil.copytree(folder / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}))
    with caplog.at_level(logging.WARNING):
        run(folder, tmp_path / "out", max_steps=1, model_name_or_path=model, dry_run=dry_run)
    shown = caplog.text if dry_run == "false" else " ".join(capsys.readouterr().out.split())
    assert "attention_dropout is 0.1 in the model's configuration; packed training does not drop" in shown


@pytest.mark.parametrize("dry_run", ["false", "true"])
def test_a_disk_without_room_for_a_checkpoint_is_named_before_training(
    folder, tmp_path, dry_run, monkeypatch, caplog, capsys
):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with caplog.at_level(logging.WARNING):
        run(folder, tmp_path / "out", max_steps=1, dry_run=dry_run)
    shown = caplog.text if dry_run == "false" else " ".join(capsys.readouterr().out.split())
    assert "0.0 GiB are free, but a checkpoint takes about 0.0 GiB: make room" in shown


@pytest.mark.parametrize("gold", [17, ["17"], "17"])
def test_the_dry_run_scores_gold_answers_of_every_type(gold):
    row = {"prompt": "8+9?", "prompt_text": "8+9?", "answer": gold}
    check_gold_scores(["accuracy"], [accuracy_reward], [row])


def test_the_dry_run_names_the_row_of_a_gold_answer_below_the_maximum_as_other_messages_do():
    rows = [{"prompt": "8+9?", "prompt_text": "8+9?", "answer": gold} for gold in ("17", "?")]
    with pytest.raises(UserError, match=r"gold answer of row 2 \('\?'\)"):
        check_gold_scores(["accuracy"], [accuracy_reward], rows)


@pytest.mark.parametrize("users", [None, "/elsewhere"])
def test_weights_and_biases_writes_into_the_run_folder_unless_the_user_chose_another(tmp_path, monkeypatch, users):
    monkeypatch.setattr(run_module, "tracker_problem", lambda report_to: None)
    monkeypatch.setattr(run_module, "USERS_WANDB_DIR", users)
    monkeypatch.setenv("WANDB_DIR", "")
    args = SFTConfig(str(tmp_path / "out"), report_to=["wandb"], use_cpu=True)
    run_module.Run("sft", DataConfig(), args, ModelConfig("any"))
    assert os.environ["WANDB_DIR"] == (users or str(tmp_path / "out"))
