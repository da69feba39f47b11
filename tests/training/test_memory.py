import gc
import re

import pytest
import torch
from runs import arguments, make_folder

from open_r1 import sft
from open_r1.configs import GRPOConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.training import optimizers
from open_r1.training.memory import objects_frozen, out_of_memory, peak_gib
from open_r1.training.sft import SFTTrainer


def test_objects_are_collected_again_after_training_even_if_it_fails():
    with pytest.raises(RuntimeError), objects_frozen():
        assert gc.get_freeze_count() > 10_000
        raise RuntimeError
    assert gc.get_freeze_count() == 0


def test_the_peak_grows_with_what_is_held_and_stays():
    before = peak_gib(torch.device("cpu"))
    held = torch.ones(int(before * 2**30) // 4 + 2**26)  # as much as the peak so far, and 256 MiB
    during = peak_gib(torch.device("cpu"))
    assert during > before + 0.2
    assert during < 2**10
    del held
    assert peak_gib(torch.device("cpu")) == during


def test_a_run_that_is_out_of_memory_ends_in_a_sentence_that_says_what_to_change(tmp_path, monkeypatch):
    """With a document that is longer than the budget, and two options that are in use."""
    folder = make_folder(tmp_path)
    losses = iter([None, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has more.")])
    whole = SFTTrainer.pack_loss

    def pack_loss(self, pack, out):
        if error := next(losses):
            raise error
        return whole(self, pack, out)

    monkeypatch.setattr(SFTTrainer, "pack_loss", pack_loss)
    options = {"max_tokens_per_microbatch": 10, "gradient_checkpointing": "true", "mlp_chunk_tokens": 8}
    with pytest.raises(UserError) as error:
        sft.main(arguments(folder, "sft", tmp_path / "out", per_device_train_batch_size=1, **options))
    sentence = str(error.value)
    assert re.match(
        r"out of GPU memory at step 2, with packs of up to \d+ tokens per process \(CUDA out of memory\. ", sentence
    )
    assert (
        "Tried to allocate 2.00 GiB): lower max_length, or set activation_offloading true, optim adamw_8bit, "
        in sentence
    )


def test_a_generation_that_is_out_of_memory_names_the_engine_s_share():
    sentence = out_of_memory(torch.OutOfMemoryError("full"), GRPOConfig(output_dir="out", use_cpu=True), 3, 16000)
    assert "lower max_tokens_per_microbatch (now 16384), or lower vllm_gpu_memory_utilization (now 0.3)" in sentence


@pytest.mark.parametrize(("optim", "package"), [("paged_adamw_8bit", "bitsandbytes"), ("adamw_torch_8bit", "torchao")])
def test_an_optimizer_whose_package_is_missing_is_named(tmp_path, monkeypatch, capsys, optim, package):
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    words = arguments(make_folder(tmp_path), "sft", tmp_path / "out", optim=optim)
    with pytest.raises(UserError, match=f"optim is {optim}, but {package} is not installed: pip install {package}"):
        sft.main(words)
    sft.main([*words, "--dry_run"])
    assert f"note: optim is {optim}, but {package}" in " ".join(capsys.readouterr().out.split())


def test_an_optimizer_that_does_not_know_sharded_weights_is_refused(tmp_path, monkeypatch, capsys):
    """bitsandbytes: its operators have no sharding strategy for what FSDP2 makes of the weights."""
    monkeypatch.setattr(optimizers, "find_spec", lambda name: object())
    words = arguments(make_folder(tmp_path), "sft", tmp_path / "out", optim="paged_adamw_8bit")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    sentence = "optim is paged_adamw_8bit, and bitsandbytes cannot update weights that FSDP has sharded"
    with pytest.raises(UserError, match=sentence):
        sft.main(words)
    sft.main([*words, "--dry_run"])
    assert f"note: {sentence}" in " ".join(capsys.readouterr().out.split())


def test_nothing_is_advised_that_would_be_refused(monkeypatch):
    args = SFTConfig(output_dir="out", use_cpu=True)
    assert "optim adamw_8bit" in out_of_memory(torch.OutOfMemoryError("full"), args, 3, 16000)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "optim adamw_8bit" not in out_of_memory(torch.OutOfMemoryError("full"), args, 3, 16000)
