"""Whether `torch.compile` can be used on this machine's accelerator."""

import functools
import importlib.util
import os
import shutil


@functools.cache
def can_compile() -> bool:
    """Whether Triton is there, and the C compiler that it builds its launchers with."""
    compilers = [os.environ.get("CC"), "gcc", "cc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(shutil.which(c) for c in compilers if c)
