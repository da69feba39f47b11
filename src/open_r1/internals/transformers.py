"""Private names of transformers."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import deepspeed, hub_kernels

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

OVERRIDDEN = {
    "_save": "saves the weights even if something else cannot be written; `save_model` calls it",
    "_save_checkpoint": "stages the whole checkpoint and renames it; callbacks run only after that",
    "_get_output_dir": "returns the staging folder while a checkpoint is written; `save_model` gets it as an argument",
    "_push_from_checkpoint": "must wait for the rename; `_save_checkpoint` calls it, and no option delays it",
    "_maybe_log_save_evaluate": "ends the run once the step is saved and evaluated; callbacks cannot do this in order",
    "_issue_warnings_after_load": "does not warn of tied weights, of which a checkpoint has one; no option does this",
}
"""Methods of `Trainer` that `PackedTrainer` overrides, with the reason."""


def load_weights(trainer: "Trainer", checkpoint: str) -> None:
    """Loads the weights of a checkpoint (whole, sharded or adapters) into `trainer.model`.

    `_load_from_checkpoint`: `Trainer.train` calls it, and would also run a step.
    """
    trainer._load_from_checkpoint(checkpoint)


def write_folder(trainer: "Trainer", folder: str | None, state_dict: dict[str, torch.Tensor] | None) -> None:
    """Writes model, tokenizer and arguments into `folder` in this process.

    `_save`: the public `save_model` would gather the weights of a sharded model a second time.
    """
    from transformers import Trainer

    Trainer._save(trainer, folder, state_dict)


def push_checkpoint(trainer: "Trainer", checkpoint: str) -> None:
    """Uploads a checkpoint according to `hub_strategy`.

    `_push_from_checkpoint`: the public `push_to_hub` supports neither strategies nor uploads in progress.
    """
    from transformers import Trainer

    Trainer._push_from_checkpoint(trainer, checkpoint)


def reset_loss(trainer: "Trainer") -> None:
    """Sets the loss since the last log to 0.

    `_tr_loss`: Trainer subtracts it from itself when it logs, so NaN would remain in all later logs.
    """
    trainer._tr_loss.zero_()


def set_device(args: "TrainingArguments", device: torch.device) -> None:
    """Replaces the device that `args` computed.

    `_setup_devices`, the cached value of the read-only `device`: rank 1 on a CPU gets `cpu:1`, which `torch.load`
    refuses.
    """
    args.__dict__["_setup_devices"] = device


def limit_to_one_gpu(args: "TrainingArguments") -> None:
    """Makes Trainer use one GPU even if the process sees several.

    `_n_gpu`, the value of the read-only `n_gpu`: if it is larger, Trainer wraps the model in `DataParallel`.
    """
    args._n_gpu = min(args.n_gpu, 1)


@contextmanager
def without_deepspeed_config() -> Iterator[None]:
    """A context in which new models are whole in every process, also with ZeRO-3.

    `_hf_deepspeed_config_weak_ref`: the public `unset_hf_deepspeed_config` discards the configuration, which has to be
    restored.
    """
    reference = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference


def attention_name(model: nn.Module) -> str:
    """The name of the attention function that the model calls.

    `_attn_implementation`: there is a public `set_attn_implementation`, but no public getter.
    """
    return model.config._attn_implementation  # type: ignore[union-attr,return-value]


def takes_registered_attention(model: PreTrainedModel) -> bool:
    """Whether the model's attention function can be replaced by a registered one.

    `_supports_attention_backend`: publicly, only an error of `set_attn_implementation` shows this, after the fact.
    """
    return model._supports_attention_backend


def replace_checkpointing(model: nn.Module, replace: Callable[[Callable], Callable | None]) -> None:
    """Replaces the checkpointing function of every checkpointed layer by `replace(function)`, unless that is None.

    `_gradient_checkpointing_func`: the public `gradient_checkpointing_enable` takes options, not a function.
    """
    for module in model.modules():
        function = vars(module).get("_gradient_checkpointing_func")
        if function is not None and (new := replace(function)) is not None:
            vars(module)["_gradient_checkpointing_func"] = new


def plain_functions(modeling: ModuleType) -> dict[str, Callable]:
    """By name, transformers' own PyTorch functions that `modeling` replaces by kernels of installed packages.

    `hub_kernels` decorates them when `modeling` is imported: no public option turns fla-core,
    causal-conv1d and mamba-ssm off.
    """
    plain = {}
    for name, function in vars(modeling).items():
        if isinstance(function, nn.Module):  # the package `kernels` turns them into modules
            function = inspect.getclosurevars(type(function).forward).nonlocals.get("func")
        decorated = inspect.isfunction(function) and hasattr(function, "__wrapped__")
        if decorated and function.__globals__ is vars(hub_kernels):
            plain[name] = inspect.unwrap(function)
    return plain


def router_outputs(model: PreTrainedModel) -> list[tuple[str, nn.Module, int]]:
    """The routers of a mixture of experts: name, module, and index of the logits in its output.

    `_can_record_outputs`: the public `output_router_logits` adds a loss and stores the logits of every layer.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    found: dict[str, tuple[str, nn.Module, int]] = {}
    for recorder in (r for part in parts for r in _recorders(part)):
        for name, module in model.named_modules():
            if isinstance(module, recorder.target_class) and (recorder.layer_name or "") in name:
                found[name] = (name, module, recorder.index)
    return list(found.values())


def _recorders(model: PreTrainedModel) -> list[Any]:
    recorders = (model._can_record_outputs or {}).get("router_logits", [])
    return [r for r in (recorders if isinstance(recorders, list) else [recorders]) if hasattr(r, "target_class")]
