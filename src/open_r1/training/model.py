"""Loading the model that is trained."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from open_r1.configs import ModelConfig, TrainConfig
from open_r1.errors import UserError
from open_r1.hub import reading_hub
from open_r1.installing import install_command
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION, check_attention_supported, unused_dropout
from open_r1.modeling.compiling import compile_layers
from open_r1.training.backends import whole_models
from open_r1.training.logprobs import add_logprob_forward, check_packed_forward

logger = logging.getLogger(__name__)


def load_policy(config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    """The model to train: float32 master weights (bfloat16 with `pure_bf16`), packed attention, LoRA and compiled
    layers if asked for.

    Raises UserError if there is no such model, or if packed training would not be exact for its architecture.
    """
    return _as_policy(load_causal_lm(config), config, args)


def adopt_policy(model: PreTrainedModel, config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    """`model` itself, which is loaded already, as the model to train: as if `load_policy` had loaded it.

    Its weights become float32. Raises UserError as `load_policy` does.
    """
    check_attention_supported(model.config)
    for wrapped in ("forward", "_original_forward"):  # by an earlier training, or in the model that this is a copy of
        vars(model).pop(wrapped, None)
    model.float()
    model.set_attn_implementation(_attention(config))
    add_logprob_forward(model)
    return _as_policy(model, config, args)


def _as_policy(model: PreTrainedModel, config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    if not _sharded_at_load():
        check_packed_forward(model)
    if note := unused_dropout(model.config):
        logger.warning(note)
    model.config.use_cache = True
    if args.torch_compile:
        compile_layers(model)
    if config.use_peft:
        return _with_adapters(model, config, args.seed)
    return model


def context_length(config: ModelConfig) -> int | None:
    """Most tokens that prompt and completion may have together, if the model has a limit."""
    return getattr(load_config(config).get_text_config(), "max_position_embeddings", None)


def load_config(config: ModelConfig) -> PretrainedConfig:
    """The model's configuration. Raises UserError if there is none, or its attention is not supported."""
    with _explained(config):
        model_config = AutoConfig.from_pretrained(weights_name(config), **_options(config))
    check_attention_supported(model_config)
    return model_config


def load_generation_config(config: ModelConfig) -> GenerationConfig | None:
    """How the model generates by default, or None if it does not say."""
    try:
        return GenerationConfig.from_pretrained(weights_name(config), revision=config.model_revision)
    except OSError:
        return None


def load_causal_lm(config: ModelConfig) -> PreTrainedModel:
    """The plain model with packed attention and the logprob forward; adapters in a LoRA folder are merged."""
    model_config = load_config(config)
    with _explained(config):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            weights_name(config),
            config=model_config,
            dtype=torch.bfloat16 if config.pure_bf16 else torch.float32,
            attn_implementation=_attention(config),
            output_loading_info=True,
            **_options(config),
        )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"model_name_or_path: the weights in {config.model_name_or_path} lack {len(missing)} tensors of the model, "
            f"{missing[0]} first, which would be trained from random values: get the whole checkpoint."
        )
    if weights_name(config) != config.model_name_or_path:
        model = (
            _peft().PeftModel.from_pretrained(model, config.model_name_or_path).merge_and_unload().requires_grad_(True)
        )
    add_logprob_forward(model)
    return model


def empty_replica(config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    """The plain model on this process's device, whole on every backend, in the dtype that is computed in; its weights
    are random until somebody writes them."""
    half = args.bf16 or config.pure_bf16
    with whole_models(), torch.device(args.device):
        return AutoModelForCausalLM.from_config(
            load_config(config),
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation="sdpa",
            trust_remote_code=config.trust_remote_code,
        )


def weights_name(config: ModelConfig) -> str:
    """Where the weights are: for a folder that holds LoRA adapters only, the model that they were trained on."""
    name = str(config.model_name_or_path)
    adapters = Path(name) / "adapter_config.json"
    if adapters.is_file() and not (Path(name) / "config.json").exists():
        return json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return name


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        command = install_command("peft")
        raise UserError(f"LoRA adapters need peft, which is not installed: {command}.") from error
    return peft


def _options(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.model_revision, "trust_remote_code": config.trust_remote_code}


def _attention(config: ModelConfig) -> str:
    if config.attn_implementation == "varlen" and not torch.cuda.is_available():
        raise UserError("attn_implementation is varlen, which needs a CUDA device: leave it out on this machine.")
    return SDPA_ATTENTION if config.attn_implementation == "sdpa" else ATTENTION


@contextmanager
def _explained(config: ModelConfig) -> Iterator[None]:
    try:
        with reading_hub(weights_name(config), "model_name_or_path"):
            yield
    except (OSError, ValueError, RuntimeError, HFValidationError, SafetensorError) as error:
        name = config.model_name_or_path or ""
        kind = "folder" if Path(name).exists() else "hub id or folder"
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model_name_or_path is {name!r}, which is not a {kind} with a causal language model ({reason}). "
            "Give a folder with config.json and model.safetensors, or a hub id."
        ) from error


def _with_adapters(model: PreTrainedModel, config: ModelConfig, seed: int) -> PreTrainedModel:
    peft = _peft()
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules or "all-linear",
        modules_to_save=config.lora_modules_to_save,
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # adapters begin at random: the same ones in every run and on every rank
            return peft.get_peft_model(model, lora)
    except ValueError as error:
        raise UserError(f"lora_target_modules is {config.lora_target_modules}: {error}") from error


def _sharded_at_load() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled, is_fsdp_enabled

    return is_deepspeed_zero3_enabled() or is_fsdp_enabled()
