"""`torch.compile` where it pays: a decoder layer at a time, so that norms, rotary embeddings, gates and residuals
become a few fused kernels between the matrix products."""

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import PretrainedConfig, PreTrainedModel

from open_r1.errors import UserError
from open_r1.internals.torch import (
    constant_floats,
    is_tracing,
    mark_rows_dynamic,
    options_without_size_guards,
    varlen_operation,
)
from open_r1.internals.transformers import replace_checkpointing
from open_r1.modeling import flash

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
ATTENTION_OPERATIONS = (torch.ops.open_r1.flash_attention.default, varlen_operation())


@functools.cache
def can_compile() -> bool:
    """Whether there is a C compiler, and on CUDA Triton, which builds its launchers with it."""
    compilers = [os.environ.get("CC"), "gcc", "cc", "clang"]
    has_triton = importlib.util.find_spec("triton") is not None
    return (has_triton or not torch.cuda.is_available()) and any(shutil.which(c) for c in compilers if c)


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles every decoder layer in place. Layers of one kind share their code, which supports any pack.

    Raises UserError if nothing can be compiled here.
    """
    if not can_compile():
        raise UserError(
            "torch_compile is true, which needs a C compiler (and Triton on CUDA), but none was found: install gcc, "
            "or omit torch_compile."
        )
    for layer in model.get_decoder().layers:  # type: ignore[operator, union-attr]
        layer.compile(dynamic=True, options=options_without_size_guards())


def checkpoint_in_graphs(model: nn.Module) -> None:
    """Puts the checkpoints of compiled layers into their graphs.

    Changes nothing for models with dropout, because torch 2.11 cannot draw the same random numbers again in a graph,
    nor for checkpoints with options other than `use_reentrant: false`.

    A checkpoint around a compiled layer computes its whole graph again. Inside the graph, the backward pass computes
    only what it needs: not the MLP's last product, which is 30% of a layer. `_policy` says what is kept in addition to
    the input. Numbers and FLOPs per token, with width H, queries Q, keys and values K, inner size I:

    ========================  ===========  ============  ==============================
    result                    numbers      saves FLOPs   Qwen2.5-1.5B, bfloat16
    ========================  ===========  ============  ==============================
    attention                 Q            all scores    3,072 bytes
    its input: q, k, v        Q + 2 K      2 H (Q + 2K)  4,096 bytes, 6.3 MFLOP, kept
    its output product        H            2 Q H         3,072 bytes, 4.7 MFLOP, kept
    MLP: gate, up             2 I          4 H I         35,840 bytes, 55.1 MFLOP
    ========================  ===========  ============  ==============================

    Per byte, all products save about the same; those of the MLP would take three times the memory of everything else.
    If something breaks a layer's graph, its checkpoint is around it, and keeps attention (`flash.keep_attention`).
    """
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    if _drops(model, config):
        return
    width = config.hidden_size

    def contexts() -> tuple[Any, Any]:
        if not is_tracing():
            return flash.keep_attention()
        return create_selective_checkpoint_contexts(functools.partial(_policy, width))

    def run(layer: Callable, *args: Any) -> Any:
        return checkpoint(layer, *args, use_reentrant=False, context_fn=contexts)

    compiled = torch.compile(run, dynamic=True, options=options_without_size_guards())

    def call(layer: Callable, *args: Any) -> Any:
        with constant_floats():
            return compiled(layer, *args)

    def replaced(function: Any) -> Any:
        return call if getattr(function, "keywords", None) == {"use_reentrant": False} else None

    replace_checkpointing(model, replaced)
    # It warns about in-place operations, which a graph does not have.
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)


def _drops(model: nn.Module, config: PretrainedConfig) -> bool:
    modules = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    rates = [value for name, value in config.to_dict().items() if "drop" in name]
    return modules or any(isinstance(rate, float) and rate > 0 for rate in rates)


def _policy(width: int, context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keeps attention and the products between vectors of about `width`: not those of the MLP, whose inner size is
    larger, nor the second product of an adapter, which has few inputs."""
    kept = operation in ATTENTION_OPERATIONS
    if operation in PRODUCTS and all(isinstance(size, int) for size in args[-1].shape):
        inputs, outputs = args[-1].shape
        kept = width <= 2 * inputs and max(inputs, outputs) <= 2 * width
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def compile_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors that have equally many rows, compiled once for all numbers of rows.

    Other sizes are constants. A single row, which would be compiled separately, is computed without compilation.
    Reductions are not split, which pays for few rows only, but would be decided by the first call for all.
    """
    compiled = torch.compile(function, options={"split_reductions": False})

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor)]
        if len(tensors[0]) == 1:
            return function(*args)
        for tensor in tensors:
            mark_rows_dynamic(tensor)
        return compiled(*args)

    return call
