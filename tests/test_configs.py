"""The dataclasses of options by themselves."""

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from transformers import TrainingArguments

from open_r1.configs import GRPOConfig, SFTConfig
from open_r1.errors import UserError


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


@pytest.mark.parametrize(
    ("options", "named"),
    [({}, "epsilon_high is None"), ({"epsilon_high": 0.28}, "0.28"), ({"epsilon_high": 5.0, "delta": 2.0}, "delta")],
)
def test_cispo_wants_the_bound_of_its_ratio(options, named):
    with pytest.raises(UserError, match=named):
        GRPOConfig(output_dir="out", use_cpu=True, loss_type="cispo", **{"epsilon_high": None, **options})
