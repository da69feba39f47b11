"""The dataclasses of options by themselves."""

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from transformers import TrainingArguments

from open_r1.configs import GRPOConfig, SFTConfig


@pytest.mark.parametrize("config", [SFTConfig, GRPOConfig])
def test_constructing_a_configuration_changes_nothing_outside_it(config, tmp_path):
    environment = dict(os.environ)
    config(output_dir=str(tmp_path / "out"), use_cpu=True)
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []


def test_constructing_a_configuration_leaves_deepspeed_alone(monkeypatch):
    """What transformers itself does with DeepSpeed, which is not installed here, is left out."""
    deepspeed = ModuleType("deepspeed")
    deepspeed.__spec__ = ModuleSpec("deepspeed", loader=None)
    deepspeed.ops = SimpleNamespace(__compatible_ops__={"deepspeed_shm_comm": True})
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    SFTConfig(output_dir="out", use_cpu=True)
    assert deepspeed.ops.__compatible_ops__ == {"deepspeed_shm_comm": True}
