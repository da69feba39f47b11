"""Private names of vLLM, used inside its own processes."""

from typing import Any

import torch
from torch import nn


def schedulers() -> tuple[type, type]:
    """vLLM's synchronous and asynchronous schedulers.

    `--scheduler-cls` is public, but its base classes are not. `tokens.py` needs whole completions, while vLLM reports
    every token.
    """
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    return Scheduler, AsyncScheduler


def begin_reload(model: nn.Module, device: torch.device) -> bool:
    """Prepares layers that vLLM has rearranged for new weights. False if weights can simply be loaded again.

    `initialize_layerwise_reload`: vLLM's public weight transfer calls it, but supports neither gloo nor CPUs.
    """
    if device.type == "cuda" and keeps_weights_as_loaded(model):
        return False
    from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

    with torch.device(device):
        initialize_layerwise_reload(model)
    return True


def end_reload(model: nn.Module, model_config: Any, device: torch.device) -> None:
    """Finishes the layers that `begin_reload` has opened (`finalize_layerwise_reload`)."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    with torch.device(device):
        finalize_layerwise_reload(model, model_config)
    if device.type == "cpu":
        _pack_tied_head(model)


def keeps_weights_as_loaded(model: nn.Module) -> bool:
    """Whether no layer is a mixture of experts or quantized (`quant_method`): vLLM rearranges the weights of these."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is not None and not type(method).__name__.startswith("Unquantized"):
            return False
        if "FusedMoE" in type(module).__name__ or hasattr(module, "w13_weight"):
            return False
    return True


def _pack_tied_head(model: nn.Module) -> None:
    """Updates the packed copy from which vLLM computes the head on a CPU (`quant_method` of `ParallelLMHead`). vLLM
    does not do so if the head is tied to the embedding, because no weights arrive for it."""
    for module in model.modules():
        if type(module).__name__ == "ParallelLMHead":
            method: Any = module.quant_method
            method.process_weights_after_loading(module)
