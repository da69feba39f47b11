import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).parent / "kernel_checks.py"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's test runs the same checks")
def test_kernels_do_what_their_specifications_do_in_tritons_interpreter():
    """In a process of its own: Triton decides at import whether it interprets."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, str(CHECKS)], env=environment, check=True)


@pytest.mark.gpu
@pytest.mark.parametrize("part", ["float32", "float16", "bfloat16", "sampling"])
def test_kernels_do_what_their_specifications_do_on_a_gpu(part):
    subprocess.run([sys.executable, str(CHECKS), part], check=True)
