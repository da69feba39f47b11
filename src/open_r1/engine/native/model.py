"""The engine's copy of a policy: a transformers model's own modules, its attention replaced by the engine's.

A copy for training computes like the trainer under bfloat16 autocast: linear layers in bfloat16, everything else in
float32, so that its logprobs are as close to the trainer's as rounding allows. Tied embeddings then become two tensors,
a float32 embedding and a bfloat16 head, and an update writes both.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from open_r1.engine.native.attention import NATIVE_ATTENTION
from open_r1.engine.native.merging import merge_linears
from open_r1.errors import UserError
from open_r1.modeling.head import LogitRule, float32_product, logit_rule


class NativeModel:
    """`model` as the engine runs it: hidden states of packed prompts or of one token per row, and logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        model.eval().requires_grad_(False)
        model.set_attn_implementation(NATIVE_ATTENTION)
        config = model.config.get_text_config()
        self.model, self.decoder = model, getattr(model, model.base_model_prefix)
        self.layers: list[nn.Module] = list(self.decoder.layers)
        self.head: Any = model.get_output_embeddings()
        self.rule: LogitRule = logit_rule(config, 1.0)
        self.vocabulary: int = self.head.weight.shape[0]
        self.device = self.head.weight.device
        self.attentions: list[Any] = [layer.self_attn for layer in self.layers]
        self.heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # transformers passes a four-dimensional mask through unchanged and does not build its own.
        self.no_mask = torch.zeros(1, 1, 1, 1, device=self.device)
        self.targets = _targets(model)
        self.shares = False

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of linear layers, and so of keys and values."""
        return self.head.weight.dtype

    @property
    def mixed(self) -> bool:
        """Whether some weights are float32 while linear layers are not."""
        return self.dtype != torch.float32 and any(p.dtype == torch.float32 for p in self.model.parameters())

    def autocast(self) -> AbstractContextManager:
        """The trainer's precision; no weight is cast, because linear layers already have the dtype."""
        if not self.mixed:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)

    def hidden(self, ids: Tensor, positions: Tensor, **storage: Any) -> Tensor:
        """Last hidden states `(T, H)` of `ids (T,)`; `storage` is passed to the attention function."""
        with self.autocast():
            return self.decoder(
                input_ids=ids[None],
                position_ids=positions[None],
                attention_mask=self.no_mask,
                use_cache=False,
                **storage,
            ).last_hidden_state[0]

    def head_product(self, hidden: Tensor) -> Tensor:
        """Float32 logits `(T, V)`, before `rule`."""
        return float32_product(hidden.to(self.head.weight.dtype), self.head.weight, self.head.bias)

    def cache_bytes(self, page_size: int) -> int:
        """Bytes of one page, over all layers."""
        return len(self.layers) * 2 * self.heads * page_size * self.head_width * self.dtype.itemsize

    def allocate_cache(self, pages: int, page_size: int) -> Tensor:
        """A cache `(layers, pages, 2, heads, page size, D)`; each attention module gets the part of its layer."""
        shape = len(self.layers), pages, 2, self.heads, page_size, self.head_width
        cache = torch.zeros(shape, dtype=self.dtype, device=self.device)
        for module, part in zip(self.attentions, cache, strict=True):
            module.kv_pages = part
        return cache

    def free_cache(self) -> None:
        """Releases the cache."""
        for module in self.attentions:
            del module.kv_pages

    def merge_linears(self) -> None:
        """Merges linear layers that share an input, unless the policy owns their weights."""
        if not self.shares:
            merge_linears(self.layers)

    @contextmanager
    def layers_replaced(self, by: Callable) -> Iterator[None]:
        """A context in which every decoder layer's forward is `by(forward)`."""
        for layer in self.layers:
            layer.forward = by(layer.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    @torch.no_grad()
    def load(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copies every tensor into the model's tensors of that name, in place, because graphs use their addresses."""
        for name, tensor in named_tensors:
            for target in self.targets.get(name, ()):
                if target.data_ptr() != tensor.data_ptr():
                    target.copy_(tensor)
            if name not in self.targets:
                raise UserError(f"The policy has a tensor {name}, which the engine's copy of it lacks.")

    def share(self, policy: nn.Module) -> None:
        """Replaces the weights by the policy's own tensors, of equal names, shapes and dtypes."""
        tensors: dict[str, Any] = dict(policy.named_parameters(remove_duplicate=False))
        for name, parameter in list(self.model.named_parameters(remove_duplicate=False)):
            owner, _, leaf = name.rpartition(".")
            if parameter.dtype != tensors[name].dtype:
                raise ValueError(f"{name}: {parameter.dtype} cannot share with {tensors[name].dtype}")
            setattr(self.model.get_submodule(owner), leaf, tensors[name])
        self.targets, self.shares = _targets(self.model), True


def training_copy(model: Any) -> PreTrainedModel:
    """`model` with linear layers in bfloat16 and everything else in float32, embedding and head untied."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().to(torch.bfloat16, copy=True), requires_grad=False)
    for module in model.modules():
        linear = isinstance(module, nn.Linear)
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16 if linear else torch.float32)
    return model


def _targets(model: PreTrainedModel) -> dict[str, list[Tensor]]:
    """The tensors that a named tensor of the policy is copied into: more than one where the policy ties them."""
    targets: dict[str, list[Tensor]] = {
        name: [parameter] for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if model.config.get_text_config().tie_word_embeddings and embedding is not head:
        for tensors in targets.values():
            if tensors[0] is embedding:
                tensors.append(head)
    return targets
