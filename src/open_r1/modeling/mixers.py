"""Layers that mix tokens without attention (gated delta nets, Mamba, short convolutions), over packed documents.

Over a pack as one row, the state or convolution of one document would leak into the next. So such a module runs over
the documents as rows of a few rectangles, at most a quarter of which is padding (`DocumentLayout.padded_groups`). It is
causal, so padding on the right changes nothing.
"""

import functools
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from open_r1.internals.transformers import plain_functions
from open_r1.modeling.layout import DocumentLayout

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
STATEFUL = ("MiniMaxLightningAttention",)
"""Classes of mixers without a convolution."""


class Documents:
    """The layout of the pack that a model is computing; None outside a pack."""

    layout: DocumentLayout | None = None


class DocumentWise(nn.Module):
    """A mixer that keeps documents apart while `documents` has a layout."""

    documents: Documents
    takes_packs_on: str | None = None
    """The type of device on which the module's functions keep documents apart on their own (`fla.py`)."""

    @torch.compiler.disable
    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the module's own forward, for `hidden_states (1, T, H)` of a pack or `(B, T, H)` of rows."""
        layout = self.documents.layout
        if layout is None:
            return super().forward(hidden_states, *args, **kwargs)
        kwargs = {name: None if name == "attention_mask" else value for name, value in kwargs.items()}
        kwargs.pop("layout", None)
        if self.takes_packs_on == hidden_states.device.type:
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
    """The rows `queries` of a tensor `(1, T, ...)`; anything else unchanged."""
    return value[0][queries] if isinstance(value, Tensor) and value.shape[:2] == (1, tokens) else value


def mixers(model: nn.Module) -> list[nn.Module]:
    """The modules of `model` that mix tokens without attention."""
    return [module for module in model.modules() if is_mixer(module)]


def is_mixer(module: nn.Module) -> bool:
    """Whether `module` itself mixes tokens without attention."""
    return type(module).__name__ in STATEFUL or any(isinstance(child, CONVOLUTIONS) for child in module.children())


def use_plain_functions(model: nn.Module) -> None:
    """Makes the mixers of `model`, and of all models of its type in this process, call transformers' own PyTorch
    functions. If fla-core, causal-conv1d or mamba-ssm is installed, transformers prefers its kernels, which do not
    support CPU tensors, nor all sizes, nor, on some GPUs, a backward pass."""
    for modeling in {type(mixer).__module__ for mixer in mixers(model)}:
        vars(sys.modules[modeling]).update(plain_functions(sys.modules[modeling]))


def unadaptable(model: nn.Module) -> list[str] | None:
    """Names of linear layers that get adapters only on request: routers that return more than a product (Llama 4,
    Phi-MoE), and layers whose weights Mamba's kernels read directly (PEFT refuses some of them)."""
    kinds = {type(mixer).__name__ for mixer in mixers(model)}
    names = {"out_proj"} if any("Mamba" in kind or "Mixer" in kind for kind in kinds) else set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "Router" in type(module).__name__:
            names.add(name.rpartition(".")[2])
    return sorted(names) or None


def separate_documents(model: PreTrainedModel) -> Documents:
    """Makes every mixer and attention of `model` keep documents apart while `layout` of the result is set.

    It must stay set until the end of the backward pass, which runs checkpointed layers again.
    """
    use_plain_functions(model)
    documents = Documents()
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.documents = documents  # type: ignore[assignment]
    for module in mixers(model):
        if not isinstance(module, DocumentWise):
            module.__class__ = _document_wise(type(module))  # type: ignore[arg-type]
        module.documents = documents  # type: ignore[assignment]
        module.takes_packs_on = None  # type: ignore[assignment]  # also of a model that was trained with `use_fla`
    return documents


@functools.cache
def _document_wise(kind: type) -> type:
    return type(kind.__name__, (DocumentWise, kind), {"__module__": kind.__module__})
