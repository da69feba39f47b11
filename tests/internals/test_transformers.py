"""What the code needs of transformers beyond its public names, in the version that is installed."""

import functools
import inspect
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.integrations import deepspeed
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from open_r1.internals.transformers import (
    OVERRIDDEN,
    attention_name,
    limit_to_one_gpu,
    plain_functions,
    replace_checkpointing,
    set_device,
    without_deepspeed_config,
)
from open_r1.training.grpo import GRPOTrainer
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.sft import SFTTrainer

CALLED = {
    "_save": ["self", "output_dir", "state_dict"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint"],
    "_push_from_checkpoint": ["self", "checkpoint_folder"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_get_output_dir": ["self", "trial"],
    "_maybe_log_save_evaluate": ["self"],
}
"""Parameters that our calls and overrides count on."""


def private_overrides(cls):
    return {name for name in vars(cls) if name.startswith("_") and not name.endswith("__") and hasattr(Trainer, name)}


def test_methods_of_trainer_that_are_called_or_overridden_are_there():
    for name, expected in CALLED.items():
        assert list(inspect.signature(getattr(Trainer, name)).parameters)[: len(expected)] == expected


def test_every_private_method_that_is_overridden_is_listed():
    assert private_overrides(PackedTrainer) == set(OVERRIDDEN)
    assert not private_overrides(GRPOTrainer) | private_overrides(SFTTrainer)


def test_trainer_calls_what_is_overridden():
    source = inspect.getsource(Trainer)
    assert [name for name in OVERRIDDEN if f"self.{name}(" not in source] == []


def test_device_and_number_of_gpus_can_be_replaced(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    set_device(args, torch.device("meta"))
    assert args.device == torch.device("meta")
    args._n_gpu = 4
    assert args.n_gpu == 4
    limit_to_one_gpu(args)
    assert args.n_gpu == 1


def test_deepspeed_configuration_is_put_aside_and_comes_back():
    class Config:
        def is_zero3(self):
            return True

    config = Config()
    deepspeed.set_hf_deepspeed_config(config)
    try:
        with without_deepspeed_config():
            assert not deepspeed.is_deepspeed_zero3_enabled()
        assert deepspeed._hf_deepspeed_config_weak_ref() is config
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_the_attention_that_a_model_calls_can_be_read():
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert attention_name(model) == name


def test_the_checkpointing_of_layers_can_be_replaced():
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=8)
    model, calls = LlamaForCausalLM(config).train(), []

    def counting(checkpoint):
        return lambda *args, **kwargs: (calls.append(1), checkpoint(*args, **kwargs))[1]

    replace_checkpointing(model, counting)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    replace_checkpointing(model, lambda _: None)
    model(torch.tensor([[1, 2]])).logits.sum().backward()
    assert calls == []
    replace_checkpointing(model, counting)
    model(torch.tensor([[1, 2]])).logits.sum().backward()
    assert len(calls) == 2


def as_module(func):
    """As the package `kernels` makes modules of functions."""

    class Func(nn.Module):
        def forward(self, *args, **kwargs):
            return func(*args, **kwargs)

    return Func()


@pytest.mark.parametrize("wrapped", [lambda function: function, as_module])
def test_behind_kernels_are_the_functions_of_transformers_and_nothing_else_is_touched(wrapped):
    def rule(x):
        return x

    modeling = ModuleType("modeling")
    modeling.rule = wrapped(use_kernel_func_from_hub_with_fallback("rule", "no_such_package")(rule))
    modeling.cached = functools.cache(rule)
    modeling.layer = nn.Linear(1, 1)
    modeling.decorator = use_kernel_func_from_hub_with_fallback
    assert plain_functions(modeling) == {"rule": rule}
