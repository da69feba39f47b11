"""What a resumed run must take back beside weights: the state of the random generators."""

import shutil

import pytest
import torch
from runs import arguments, make_folder, metrics
from safetensors.torch import load_file

from open_r1 import sft


def test_dropout_of_a_resumed_run_goes_on_where_it_was(tmp_path):
    pytest.importorskip("peft")
    folder = make_folder(tmp_path)
    options = {"use_peft": "true", "lora_dropout": 0.5, "learning_rate": 0.05, "save_total_limit": 9}
    argv = arguments(folder, "sft", tmp_path / "out", **options)
    sft.main(argv)
    whole, adapters = metrics(tmp_path / "out"), load_file(tmp_path / "out/adapter_model.safetensors")
    shutil.rmtree(tmp_path / "out/checkpoint-4")
    sft.main(argv)
    assert metrics(tmp_path / "out") == whole
    torch.testing.assert_close(load_file(tmp_path / "out/adapter_model.safetensors"), adapters, rtol=0, atol=0)
