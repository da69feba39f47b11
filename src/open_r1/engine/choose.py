"""Chooses the engine: the one that the options name, or for `auto` the best one for a model on this machine."""

import logging
from typing import TYPE_CHECKING, Literal

from open_r1.devices import gpu_count
from open_r1.engine.options import EngineOptions
from open_r1.engine.vllm.installed import version_of_vllm
from open_r1.errors import UserError
from open_r1.modeling.checkpoint import has_only_adapters

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

LocalEngine = Literal["native", "vllm", "transformers"]


def choose_engine(options: EngineOptions) -> LocalEngine | Literal["openai"]:
    """The engine of `options`. Raises `UserError` for options that contradict each other or this machine."""
    if options.engine == "openai" and options.base_url is None:
        raise UserError("engine is openai: give --base-url, such as http://localhost:8000/v1.")
    if options.engine in ("native", "transformers", "vllm") and options.base_url is not None:
        raise UserError(f"base_url is given, but engine is {options.engine}: remove one of them.")
    adapters = has_only_adapters(options.model)
    if options.engine == "vllm" and adapters:
        raise UserError(
            f"model {options.model}: the folder has only LoRA adapters, but vLLM needs whole weights: give "
            "--engine transformers, or a folder with merged weights."
        )
    name = _automatic(options, adapters) if options.engine == "auto" else options.engine
    _check_parallel(options, name)
    return name


def automatic_engine(config: "PretrainedConfig", *, on_cuda: bool, wants_vllm: bool) -> LocalEngine:
    """The native engine on CUDA if it supports the model of `config`; else vLLM if it is wanted and installed; else
    transformers."""
    other: LocalEngine = "vllm" if wants_vllm and version_of_vllm() is not None else "transformers"
    if not on_cuda:
        return other
    from open_r1.engine.native.support import why_unsupported
    from open_r1.modeling.compiling import can_compile

    reason = why_unsupported(config) if can_compile() else "Triton finds no C compiler"
    if reason is None:
        return "native"
    logger.warning(
        "The native engine cannot decode %s: %s. Using this engine instead: %s.", config.model_type, reason, other
    )
    return other


def _automatic(options: EngineOptions, adapters: bool) -> LocalEngine | Literal["openai"]:
    if options.base_url is not None:
        return "openai"
    if adapters or not gpu_count():
        return "transformers"
    if options.tensor_parallel_size > 1 and version_of_vllm() is not None:
        return "vllm"
    from open_r1.modeling.loading import load_config

    return automatic_engine(load_config(options.checkpoint), on_cuda=True, wants_vllm=True)


def _check_parallel(options: EngineOptions, name: str) -> None:
    """Raises `UserError` for more GPUs than an engine can use."""
    tensor, data = options.tensor_parallel_size, options.data_parallel_size or 1
    if tensor > 1 and name != "vllm":
        raise UserError(
            f"tensor_parallel_size is {tensor}, which only vLLM on GPUs supports: omit it, or give --engine vllm "
            "where it is installed."
        )
    if data > 1 and name not in ("native", "vllm"):
        raise UserError(
            f"data_parallel_size is {data} but the engine {name} runs only once: omit it, give --engine native, or "
            "give --engine vllm where it is installed."
        )
    gpus = gpu_count()
    if tensor * data > max(1, gpus) and (gpus or name == "vllm"):
        raise UserError(
            f"data_parallel_size {data} x tensor_parallel_size {tensor} needs {tensor * data} GPUs, but {gpus} are "
            "visible: lower --data-parallel-size or --tensor-parallel-size, or add GPUs to CUDA_VISIBLE_DEVICES."
        )
