"""What `engine: auto` means on this machine, for a model."""

import logging
from typing import Literal

from transformers import PretrainedConfig

from open_r1.engine.native.support import why_unsupported
from open_r1.engine.vllm.installed import version_of_vllm
from open_r1.modeling.compiling import can_compile

logger = logging.getLogger(__name__)

LocalEngine = Literal["native", "vllm", "transformers"]


def automatic_engine(config: PretrainedConfig, *, on_cuda: bool, wants_vllm: bool) -> LocalEngine:
    """The native engine on CUDA where it can decode with the model of `config`; else vLLM if it is wanted and
    installed; else transformers."""
    other: LocalEngine = "vllm" if wants_vllm and version_of_vllm() is not None else "transformers"
    if not on_cuda:
        return other
    reason = why_unsupported(config) if can_compile() else "Triton finds no C compiler"
    if reason is None:
        return "native"
    logger.warning(
        "The native engine cannot decode %s: %s. Using this engine instead: %s.", config.model_type, reason, other
    )
    return other
