"""`torch.compile` where it pays: a decoder layer at a time, so that norms, rotary embeddings, gates and residuals
become a few fused kernels between the matrix products."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from open_r1.errors import UserError
from open_r1.internals.torch import mark_rows_dynamic, options_without_size_guards


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
