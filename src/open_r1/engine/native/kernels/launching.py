"""Launches kernels. A kernel that Triton cannot build ends in one sentence that says what to do instead."""

import subprocess
from typing import Any

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from open_r1.errors import UserError, first_line

DRIVER_ERROR = "Triton Error [CUDA]"
"""How the message of an error of the device begins, which may be that of an earlier kernel."""


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """`kernel[grid](*arguments, **options)`, where `options` are the constants that a kernel is compiled for.

    Raises `UserError` if Triton cannot compile the kernel, or if it does not fit on the GPU.
    """
    try:
        kernel[grid](*arguments, **options)
    except (TritonError, RuntimeError, subprocess.CalledProcessError) as error:
        if isinstance(error, torch.AcceleratorError) or str(error).startswith(DRIVER_ERROR):
            raise
        tensors = {str(x.dtype).removeprefix("torch.") for x in arguments[:1] if isinstance(x, Tensor)}
        sizes = [*sorted(tensors), *(f"{name}={value}" for name, value in options.items())]
        raise UserError(
            f"Triton {triton.__version__} cannot build the kernel {kernel.__name__} of the native engine "
            f"({', '.join(sizes)}): {first_line(error)}. Give --engine transformers or --engine vllm, and "
            "report this message as a bug of Open R1."
        ) from error
