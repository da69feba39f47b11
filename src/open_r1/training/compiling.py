"""`torch.compile` where it pays: a decoder layer at a time, so that norms, rotary embeddings, gates and residuals
become a few fused kernels between the matrix products."""

import functools
import importlib.util
import os
import shutil

from transformers import PreTrainedModel


@functools.cache
def can_compile() -> bool:
    """Whether Triton is there, and the C compiler that it builds its launchers with."""
    compilers = [os.environ.get("CC"), "gcc", "cc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(shutil.which(c) for c in compilers if c)


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles every decoder layer in place. All layers of a kind share their code, which takes any pack length."""
    for layer in model.get_decoder().layers:  # type: ignore[operator, union-attr]
        layer.compile(dynamic=True)
