"""What a save can refuse is found before the first step, and weights are never lost to a file beside them."""

import errno
import json
import logging
import os
import resource
import shutil

import pytest
import torch
from runs import arguments, make_folder, metrics, weights
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

from open_r1 import grpo, sft
from open_r1.errors import UserError
from open_r1.training.checkpoint_files import saving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def with_generation_config(folder, tmp_path, **changes):
    model = shutil.copytree(folder / "model", tmp_path / "model")
    path = model / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return model


def run(folder, task, out, **options):
    {"sft": sft, "grpo": grpo}[task].main(arguments(folder, task, out, max_steps=1, save_strategy="no", **options))


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_sampling_options_that_a_hub_model_has_beside_greedy_decoding_cost_no_weights(folder, tmp_path, task, caplog):
    model = with_generation_config(folder, tmp_path, do_sample=False, temperature=0.6, top_p=0.95)
    with caplog.at_level(logging.WARNING):
        run(folder, task, tmp_path / "out", model_name_or_path=model)
    assert "has temperature, top_p with do_sample false" in caplog.text
    saved = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert (saved["do_sample"], saved["temperature"], saved["top_p"]) == (True, 0.6, 0.95)
    assert weights(tmp_path / "out")


@pytest.mark.parametrize("task", ["sft", "grpo"])
@pytest.mark.parametrize("dry_run", ["false", "true"])
def test_a_generation_config_that_cannot_be_saved_is_refused_before_the_first_step(folder, tmp_path, task, dry_run):
    model = with_generation_config(folder, tmp_path, early_stopping=True)
    rewards = {"reward_funcs": "accuracy"} if task == "grpo" else {}
    with pytest.raises(UserError, match=r"generation_config\.json of .* can be read but not saved"):
        run(folder, task, tmp_path / "out", model_name_or_path=model, dry_run=dry_run, **rewards)
    assert not (tmp_path / "out/run/metrics.jsonl").exists()


def test_weights_survive_a_tokenizer_that_fails_to_save_after_training(folder, tmp_path, monkeypatch):
    def refuses(self, *args, **kwargs):
        if metrics(tmp_path / "out"):
            raise ValueError("this tokenizer has changed")
        return save(self, *args, **kwargs)

    save = PreTrainedTokenizerFast.save_pretrained
    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", refuses)
    (tmp_path / "out/run").mkdir(parents=True)
    (tmp_path / "out/run/metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"this tokenizer has changed.*weights of step 1 are in .*model\.safetensors"):
        run(folder, "sft", tmp_path / "out")
    assert weights(tmp_path / "out")


FULL = "No space left on device (os error 28)"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError(f"Error while serializing: I/O error: {FULL}"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/3"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_a_sentence(tmp_path, error):
    match = r"checkpoint-2 could not be written.*GiB are free there\. Make room and continue"
    with pytest.raises(UserError, match=match), saving(tmp_path, "checkpoint-2", "continue."):
        raise error


@pytest.mark.parametrize("floats", [1, 100_000])
def test_torch_that_cannot_write_is_a_sentence(tmp_path, floats):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    match = r"checkpoint-2 could not be written.*GiB are free there\. Make room and continue"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=match), saving(tmp_path, "checkpoint-2", "continue."):
            torch.save({name: torch.zeros(floats) for name in "abc"}, tmp_path / "optimizer.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_other_failures_of_a_disk_do_not_ask_for_room(tmp_path):
    match = r"Permission denied.*Fix that and continue"
    with pytest.raises(UserError, match=match), saving(tmp_path, "checkpoint-2", "continue."):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_the_crash_of_another_process_is_not_a_full_disk(tmp_path):
    closed = "Connection closed by peer [127.0.0.1]:1234"
    for error in (RuntimeError(closed), torch.distributed.DistBackendError(closed)):
        with pytest.raises(RuntimeError, match="closed by peer"), saving(tmp_path, "checkpoint-2", "continue."):
            raise error
