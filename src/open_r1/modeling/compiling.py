"""`torch.compile` where it pays: a decoder layer at a time, so that norms, rotary embeddings, gates and residuals
become a few fused kernels between the matrix products."""

import functools
import importlib.util
import os
import shutil

import torch
from transformers import PreTrainedModel

from open_r1.errors import UserError


@functools.cache
def can_compile() -> bool:
    """Whether there is a C compiler, and on CUDA Triton, which builds its launchers with it."""
    compilers = [os.environ.get("CC"), "gcc", "cc", "clang"]
    has_triton = importlib.util.find_spec("triton") is not None
    return (has_triton or not torch.cuda.is_available()) and any(shutil.which(c) for c in compilers if c)


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles every decoder layer in place. Layers of one kind share their code, which supports any pack length.

    Raises UserError if nothing can be compiled here.
    """
    if not can_compile():
        raise UserError(
            "torch_compile is true, which needs a C compiler (and Triton on CUDA), but none was found: install gcc, "
            "or omit torch_compile."
        )
    for layer in model.get_decoder().layers:  # type: ignore[operator, union-attr]
        layer.compile(dynamic=True)
