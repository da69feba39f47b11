"""Gathers the policy's full weights, for an engine (Hugging Face names, adapters merged) or for a folder.

With FSDP2 and ZeRO-3, each process has a part of every weight. Iterating over weights is then collective: all ranks
must do it, to the end. At most one bucket of gathered weights is in memory at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from open_r1.errors import UserError

WRAPPED = "base_model.model."
BUCKET = 2**28
"""Number of elements that ZeRO-3 gathers at once."""

Named = tuple[str, Tensor]


class _Group:
    """Parameters that are needed together: those of a LoRA layer (`lora`), else one."""

    def __init__(self, parameters: list[Named], lora: Any = None, prefix: str = "") -> None:
        self.parameters, self.lora, self.prefix = parameters, lora, prefix

    @property
    def size(self) -> int:
        return sum(getattr(p, "ds_numel", p.numel()) for _, p in self.parameters)


def named_weights(model: nn.Module) -> Iterator[Named]:
    """Yields every weight of a plain or LoRA model with the name of its parameter. Each is valid until the next one is
    requested. Merged weights are new tensors, W + B A scaled (LoRA, arXiv 2106.09685, equation 3); the model itself is
    not changed."""
    for group in _gathered_groups(model):
        if group.lora is not None:
            yield f"{_plain_name(group.prefix)}.weight", _whole(_merged(group.lora))
        for name, parameter in group.parameters:
            merged = group.lora is not None and name == f"{group.prefix}.base_layer.weight"
            if not (merged or "lora_" in name or ".original_module." in name):
                yield _plain_name(name), _whole(parameter)


def checkpoint_weights(model: nn.Module) -> Iterator[Named]:
    """`named_weights` with the names and parts of the model's checkpoint: transformers has the experts of a layer in
    one parameter (`experts.gate_up_proj`), but checkpoints have one tensor per expert.

    Raises UserError if a tensor of the checkpoint consists of several parameters, which are never in memory together.
    """
    plain: Any = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]
    if not _saves_other_names(plain):
        yield from named_weights(model)
        return
    for name, tensor in named_weights(model):
        yield from revert_weight_conversion(plain, {name: tensor}).items()


def _saves_other_names(model: PreTrainedModel) -> bool:
    shapes = {
        _clean(n): torch.empty(getattr(p, "ds_shape", p.shape), device="meta") for n, p in model.named_parameters()
    }
    whole = _shapes(revert_weight_conversion(model, shapes))
    if whole == _shapes(shapes):
        return False
    alone: dict[str, torch.Size] = {}
    for name, tensor in shapes.items():
        alone |= _shapes(revert_weight_conversion(model, {name: tensor}))
    if alone != whole:
        raise UserError(
            f"model_name_or_path: {type(model).__name__} merges several weights when it is saved, so they cannot be "
            "sent to vLLM: set engine to native or transformers."
        )
    return True


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


class PolicyWeights:
    """An iterable over the weights that can be used repeatedly. Names are those of checkpoints, or of parameters for an
    engine that computes with the same modules (`takes_parameter_names`)."""

    def __init__(self, model: nn.Module, engine: Any = None) -> None:
        self.model = model
        self.parameter_names = getattr(engine, "takes_parameter_names", False)

    def __iter__(self) -> Iterator[Named]:
        return named_weights(self.model) if self.parameter_names else checkpoint_weights(self.model)


def whole_state_dict(model: nn.Module, dtype: torch.dtype | None, keep: bool) -> dict[str, Tensor]:
    """The tensors that `save_pretrained` writes (of a LoRA model, the trained ones), on the CPU, floats as `dtype`.
    Collective; the result is empty on ranks without `keep`."""
    only_trained = hasattr(model, "peft_config")
    state: dict[str, Tensor] = {}
    for group in _gathered_groups(model):
        for name, parameter in group.parameters:
            if only_trained and not parameter.requires_grad:
                continue
            tensor = _whole(parameter)
            if keep:
                state[_clean(name)] = tensor.detach().to("cpu", dtype, copy=True)
    if keep and only_trained:  # PEFT wants tied weights under each of their names
        first = {parameter: _clean(name) for name, parameter in model.named_parameters()}
        named = model.named_parameters(remove_duplicate=False)
        state |= {_clean(name): state[first[p]] for name, p in named if p.requires_grad}
    if keep and not only_trained:
        buffers = model.state_dict().keys() & dict(model.named_buffers()).keys()
        state |= {_clean(name): model.get_buffer(name).cpu() for name in sorted(buffers)}
    return state


def _gathered_groups(model: nn.Module) -> Iterator[_Group]:
    for bucket in _buckets(list(_groups(model))):
        with _gathered([p for group in bucket for _, p in group.parameters]):
            yield from bucket


def _groups(model: nn.Module) -> Iterator[_Group]:
    """Every parameter once, tied ones under their first name."""
    lora_layer: Any = ()
    if hasattr(model, "peft_config"):
        from peft.tuners.lora import LoraLayer as lora_layer
    taken: set[int] = set()
    for prefix, module in model.named_modules():
        is_lora = isinstance(module, lora_layer)
        fresh = [(n, p) for n, p in module.named_parameters(prefix, recurse=is_lora) if id(p) not in taken]
        taken.update(id(p) for _, p in fresh)
        if is_lora:
            yield _Group(fresh, module, prefix)
        else:
            yield from (_Group([named]) for named in fresh)


def _buckets(groups: Sequence[_Group]) -> Iterator[list[_Group]]:
    bucket: list[_Group] = []
    size = 0
    for group in groups:
        if bucket and size + group.size > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(group)
        size += group.size
    yield bucket


@contextmanager
def _gathered(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Gathers ZeRO-3's parts of these parameters while the context is open."""
    parts = [p for p in parameters if hasattr(p, "ds_id")]
    if not parts:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parts):
        yield


@torch.no_grad()
def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def _merged(layer: Any) -> Tensor:
    weight = layer.get_base_layer().weight
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter)
    return weight


def _plain_name(name: str) -> str:
    name = _clean(name).removeprefix(WRAPPED).replace(".modules_to_save.default", "")
    return name.replace(".base_layer.", ".")


def _clean(name: str) -> str:
    """The name without the prefixes of wrappers."""
    return name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
