"""Damaged checkpoints are named and passed over; settings that change what a checkpoint means are refused by name."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from runs import arguments, assert_same_weights, make_folder, metrics

from open_r1 import grpo, sft
from open_r1.errors import UserError
from open_r1.training.checkpoint_files import choose_checkpoint, damage, last_checkpoint, seal

FILES = (
    *("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "open_r1-rank0.pt", "trainer_state.json"),
    *("config.json", "tokenizer.json", "checksums.json"),
)
OPTIONS = {"max_steps": 4, "save_steps": 2, "save_total_limit": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run of four steps, with checkpoints after two and four."""
    out = tmp_path_factory.mktemp("whole") / "out"
    sft.main(arguments(folder, "sft", out, **OPTIONS))
    return out


@pytest.fixture
def out(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, Path.unlink], ids=lambda harm: harm.__name__)
def test_damage_to_any_file_of_a_checkpoint_is_named(out, tmp_path, harm):
    assert damage(out / "checkpoint-4") is None
    for name in FILES:
        copy = shutil.copytree(out / "checkpoint-4", tmp_path / "copy")
        harm(copy / name)
        if (name, harm) != ("checksums.json", Path.unlink):
            found = damage(copy)
            assert found is not None and (name in found or name == "checksums.json"), (name, found)
        shutil.rmtree(copy)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(folder, whole, out, caplog):
    (out / "checkpoint-4/optimizer.pt").unlink()
    with caplog.at_level(logging.WARNING):
        sft.main(arguments(folder, "sft", out, **OPTIONS))
    assert "checkpoint-4 is damaged (optimizer.pt is missing), so this run continues from checkpoint-2" in caplog.text
    assert metrics(out) == metrics(whole)
    assert_same_weights(out, whole)
    assert damage(out / "checkpoint-4") is None
    assert (out / "damaged-checkpoint-4/model.safetensors").exists()


def test_a_head_that_is_the_embedding_is_not_missing(folder, out, monkeypatch):
    warnings = []
    monkeypatch.setattr("transformers.trainer.logger.warning", lambda text, *_: warnings.append(str(text)))
    sft.main(arguments(folder, "sft", out, **OPTIONS | {"max_steps": 5}))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"]
    assert [text for text in warnings if "missing" in text] == []


def test_without_an_undamaged_checkpoint_nothing_is_begun_again(folder, out):
    for number, harm in ((2, truncate), (4, flip_a_bit)):
        harm(out / f"checkpoint-{number}/model.safetensors")
    lines = metrics(out)
    with pytest.raises(
        UserError, match=r"only damaged checkpoints.*checkpoint-4: model\.saf.*checkpoint-2: model\.saf"
    ):
        sft.main(arguments(folder, "sft", out, **OPTIONS))
    assert metrics(out) == lines
    with pytest.raises(UserError, match=r"checkpoint-4 is not a complete checkpoint \(model\.safetensors has another"):
        choose_checkpoint(out, str(out / "checkpoint-4"))


def test_a_checkpoint_of_an_earlier_version_is_believed_unless_its_optimizer_is_gone(out):
    (out / "checkpoint-4/checksums.json").unlink()
    assert choose_checkpoint(out, None) == last_checkpoint(out) == out / "checkpoint-4"
    (out / "checkpoint-4/optimizer.pt").unlink()
    assert choose_checkpoint(out, None) == out / "checkpoint-2"


def test_damaged_records_of_a_run_are_restored_from_its_checkpoint(folder, whole, out, caplog):
    shutil.rmtree(out / "checkpoint-4")
    path = out / "run/metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(json.dumps(lines[0] | {"loss": 99.0}) + "\n" + '{"step": 2, "lo')
    truncate(out / "run/config.yaml")
    with caplog.at_level(logging.WARNING):
        sft.main(arguments(folder, "sft", out, **OPTIONS))
    assert "metrics.jsonl was damaged: 2 of 2 lines" in caplog.text
    assert "other settings" not in caplog.text
    assert metrics(out) == metrics(whole)
    assert (out / "run/config.yaml").read_bytes().endswith(b"\n")


ROUNDS = {"num_iterations": 2, "steps_per_generation": 2, "max_steps": 6, "save_steps": 1, "save_total_limit": 9}


@pytest.fixture(scope="module")
def rounds(folder, tmp_path_factory):
    """A run of five steps, whose rounds of rollouts feed four; the last checkpoint is inside the second round."""
    out = tmp_path_factory.mktemp("rounds") / "out"
    grpo.main(arguments(folder, "grpo", out, **ROUNDS | {"max_steps": 5}))
    return out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_iterations": 1}, "num_iterations was 2 and is now 1"),
        ({"steps_per_generation": 1}, "steps_per_generation / gradient_accumulation_steps was 2 and is now 1"),
        ({"num_generations": 2}, "num_generations was 4 and is now 2"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size x .* was 8 and is now 4"),
        ({"seed": 8}, "seed was 7 and is now 8"),
        ({"temperature": 0.5}, "unfinished round .*temperature was 1.0 and is now 0.5.* multiple of 4"),
        ({"dataset_train_split": "train[:20]"}, "number of training rows was 24 and is now 20"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_change_what_a_checkpoint_means_are_refused_by_name(folder, rounds, changed, message):
    files = {path: path.read_bytes() for path in sorted((rounds / "run").glob("*")) if path.is_file()}
    with pytest.raises(UserError, match=message):
        grpo.main(arguments(folder, "grpo", rounds, **ROUNDS | changed))
    assert files == {path: path.read_bytes() for path in files}


def test_a_folder_is_sealed_whatever_it_holds(tmp_path):
    (tmp_path / "checkpoint-1/parts").mkdir(parents=True)
    (tmp_path / "checkpoint-1/trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-1/parts/optimizer.bin").write_bytes(b"state of rank 1")
    seal(tmp_path / "checkpoint-1")
    assert damage(tmp_path / "checkpoint-1") is None
    flip_a_bit(tmp_path / "checkpoint-1/parts/optimizer.bin")
    assert damage(tmp_path / "checkpoint-1") == "parts/optimizer.bin has another checksum"
