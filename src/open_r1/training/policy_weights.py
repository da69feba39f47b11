"""The policy's weights as an engine wants them: Hugging Face names, adapters merged."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

WRAPPED = "base_model.model."


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a plain or LoRA model under the name that its checkpoint has. Merged weights are new tensors,
    W + B A scaled (LoRA, arXiv 2106.09685, equation 3); the model itself is not touched."""
    if not hasattr(model, "peft_config"):
        yield from model.named_parameters()
        return
    merged = dict(_merged_weights(model))
    for name, parameter in model.named_parameters():
        if "lora_" in name or ".original_module." in name:
            continue
        plain = name.removeprefix(WRAPPED).replace(".modules_to_save.default", "")
        if plain.endswith(".base_layer.weight"):
            yield plain.replace(".base_layer.weight", ".weight"), merged[name]
        else:
            yield plain.replace(".base_layer.", "."), parameter


@torch.no_grad()
def _merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            weight = layer.get_base_layer().weight
            for adapter in layer.active_adapters:
                weight = weight + layer.get_delta_weight(adapter)
            yield f"{name}.base_layer.weight", weight
