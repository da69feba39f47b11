"""Layers that mix tokens without attention (gated delta nets, Mamba, short convolutions), over packed documents.

transformers' modules run over a batch of rows, and what one document leaves behind in a state or a convolution would
leak into the next. Here such a module runs over documents as rows of a few rectangles, at most a quarter padding
(`DocumentLayout.padded_groups`): it is causal, so that padding on the right changes nothing. Gated delta nets on CUDA
take the pack as it is, where fla-core is installed: its kernels know where documents begin.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from open_r1.modeling.layout import DocumentLayout

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
STATEFUL = ("MiniMaxLightningAttention",)
"""Classes of mixers without a convolution."""


class Documents:
    """Where the documents of the pack that a model computes with are; None outside a pack."""

    layout: DocumentLayout | None = None


class DocumentWise(nn.Module):
    """A mixer that keeps documents apart, while there are `documents`."""

    documents: Documents

    @torch.compiler.disable
    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the module's own, for `hidden_states (1, T, H)` of a pack or `(B, T, H)` of rows."""
        layout = self.documents.layout
        if layout is None:
            return super().forward(hidden_states, *args, **kwargs)
        kwargs = {name: None if name == "attention_mask" else value for name, value in kwargs.items()}
        kwargs.pop("layout", None)
        if hidden_states.is_cuda and takes_boundaries(self):
            return super().forward(hidden_states, *args, **kwargs, cu_seq_lens_q=layout.cu_seqlens_q)
        rectangles, inverse = layout.padded_groups()
        outputs = []
        for queries, _, _ in rectangles:
            rows_of = {name: _rows(value, queries, sum(layout.lengths)) for name, value in kwargs.items()}
            out = super().forward(hidden_states[0][queries], *args, **rows_of)
            rows = out[0] if isinstance(out, tuple) else out
            outputs.append(rows.flatten(0, 1))
        whole = torch.cat(outputs).index_select(0, inverse)[None]
        return (whole, *out[1:]) if isinstance(out, tuple) else whole


def _rows(value: Any, queries: Tensor, tokens: int) -> Any:
    """What a tensor `(1, T, ...)` says of the tokens of `queries`; anything else as it is."""
    return value[0][queries] if isinstance(value, Tensor) and value.shape[:2] == (1, tokens) else value


def mixers(model: nn.Module) -> list[nn.Module]:
    """Modules of `model` through which tokens reach others without attention."""
    return [
        module
        for module in model.modules()
        if type(module).__name__ in STATEFUL or any(isinstance(child, CONVOLUTIONS) for child in module.children())
    ]


def separate_documents(model: PreTrainedModel) -> Documents:
    """Has every mixer and attention of `model` keep documents apart while the returned `layout` is set.

    It must stay set until the backward pass is over, in which checkpointed layers run again.
    """
    documents = Documents()
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.documents = documents  # type: ignore[assignment]
    for module in mixers(model):
        if not isinstance(module, DocumentWise):
            module.__class__ = _document_wise(type(module))  # type: ignore[arg-type]
        module.documents = documents  # type: ignore[assignment]
        if takes_boundaries(module):
            _give_boundaries_to_convolution(sys.modules[type(module).__mro__[2].__module__])
    return documents


@functools.cache
def _document_wise(kind: type) -> type:
    return type(kind.__name__, (DocumentWise, kind), {"__module__": kind.__module__})


def takes_boundaries(module: nn.Module) -> bool:
    """Whether the kernels of the module take packs: those of gated delta nets, with fla-core."""
    return "GatedDeltaNet" in type(module).__name__ and importlib.util.find_spec("fla") is not None


def _give_boundaries_to_convolution(modeling: Any) -> None:
    """Replaces the convolution in a module of transformers, which has no wheel that knows boundaries, by fla-core's."""
    plain: Callable = modeling.causal_conv1d_fn
    if getattr(plain, "takes_boundaries", False):
        return

    @functools.wraps(plain)
    def convolution(
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        cu_seq_lens_q: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if cu_seq_lens_q is None:
            return plain(hidden_states, weight, bias, activation=activation, **kwargs)
        from fla.modules.causal_conv1d import causal_conv1d

        rows = hidden_states.transpose(1, 2).to(weight.dtype)
        out, _ = causal_conv1d(rows, weight, bias, activation=activation, cu_seqlens=cu_seq_lens_q)
        return out.transpose(1, 2).to(hidden_states.dtype)

    convolution.takes_boundaries = True  # type: ignore[attr-defined]
    modeling.causal_conv1d_fn = convolution
