"""Loading the model that is trained."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from open_r1.configs import ModelConfig, TrainConfig
from open_r1.errors import UserError
from open_r1.installing import install_command
from open_r1.internals.accelerate import unprepare
from open_r1.internals.transformers import without_deepspeed_config
from open_r1.modeling import flash, loading
from open_r1.modeling.architectures import check_sequence_parallel, check_supported, skeleton
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION, VARLEN_ATTENTION, unused_dropout
from open_r1.modeling.checkpoint import Checkpoint, base_name, has_only_adapters
from open_r1.modeling.compiling import compile_layers
from open_r1.modeling.fla import use_fla
from open_r1.modeling.mixers import unadaptable
from open_r1.modeling.mlp import chunk_mlps, unchunk_mlps
from open_r1.training.logprobs import add_logprob_forward, check_packed_forward

logger = logging.getLogger(__name__)


def load_policy(config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    """The model to train: float32 master weights (bfloat16 with `pure_bf16`), packed attention and, if requested,
    LoRA and compiled layers.

    Raises UserError if there is no such model, or if packed training would not be exact for its architecture.
    """
    check_sequence_parallel(load_config(config), args.sequence_parallel_size, config.trust_remote_code)
    return _as_policy(load_causal_lm(config), config, args)


def adopt_policy(model: PreTrainedModel, config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    """Prepares a loaded `model` for training, as if `load_policy` had loaded it.

    Its weights become float32. Raises UserError as `load_policy` does.
    """
    check_supported(model.config)
    check_sequence_parallel(model.config, args.sequence_parallel_size, config.trust_remote_code)
    unprepare(model)  # it may have been trained, or be a copy of such a model
    unchunk_mlps(model)
    model.float()
    model.set_attn_implementation(_attention(config, model.config))
    add_logprob_forward(model)
    return _as_policy(model, config, args)


def _as_policy(model: PreTrainedModel, config: ModelConfig, args: TrainConfig) -> PreTrainedModel:
    if config.linear_attention == "fla":
        use_fla(model)
    if not _sharded_at_load():
        check_packed_forward(model)
    if note := unused_dropout(model.config):
        logger.warning(note)
    model.config.use_cache = True
    if args.mlp_chunk_tokens is not None:
        chunk_mlps(model, args.mlp_chunk_tokens)
    if args.torch_compile:
        compile_layers(model)
    if config.use_peft:
        return add_adapters(model, config, args.seed)
    return model


def checkpoint_of(config: ModelConfig) -> Checkpoint:
    """Where the full weights are. For a folder with only LoRA adapters, it is their base model."""
    return Checkpoint(weights_name(config), config.model_revision, config.trust_remote_code)


def weights_name(config: ModelConfig) -> str:
    """Hub id or folder of the full weights, as in `checkpoint_of`."""
    return base_name(str(config.model_name_or_path))


def load_config(config: ModelConfig) -> PretrainedConfig:
    """The model's configuration. Raises UserError if there is none, or its attention is not supported."""
    model_config = loading.load_config(checkpoint_of(config))
    check_supported(model_config)
    return model_config


def load_causal_lm(config: ModelConfig) -> PreTrainedModel:
    """The plain model with packed attention and the logprob forward; adapters in a LoRA folder are merged."""
    model_config = load_config(config)
    model = loading.load_causal_lm(
        checkpoint_of(config),
        torch.bfloat16 if config.pure_bf16 else torch.float32,
        config=model_config,
        attn_implementation=_attention(config, model_config),
    )
    if has_only_adapters(str(config.model_name_or_path)):
        model = (
            _peft().PeftModel.from_pretrained(model, config.model_name_or_path).merge_and_unload().requires_grad_(True)
        )
    add_logprob_forward(model)
    return model


def empty_replica(config: ModelConfig, args: TrainConfig, built: PretrainedConfig | None = None) -> PreTrainedModel:
    """The plain model on this process's device, complete on every backend, in the compute dtype. Its weights are random
    until they are set. `built` is the configuration of a model that is already loaded."""
    half = args.bf16 or config.pure_bf16
    with without_deepspeed_config(), torch.device(args.device):
        return AutoModelForCausalLM.from_config(
            load_config(config) if built is None else copy.deepcopy(built),
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation=ATTENTION,
            trust_remote_code=config.trust_remote_code,
        )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        command = install_command("peft")
        raise UserError(f"LoRA adapters need peft, which is not installed: {command}.") from error
    return peft


def _attention(config: ModelConfig, model_config: PretrainedConfig) -> str:
    name = config.attn_implementation
    if name in ("varlen", "flash_attention_4") and not torch.cuda.is_available():
        raise UserError(f"attn_implementation is {name}, which needs a CUDA device: omit it on this machine.")
    if name == "flash_attention_4":
        _check_flash(flash.head_sizes(skeleton(model_config, config.trust_remote_code)))
    return {"sdpa": SDPA_ATTENTION, "varlen": VARLEN_ATTENTION}.get(name or "", ATTENTION)


def _check_flash(heads: set[tuple[int, int]]) -> None:
    """Raises UserError unless flash-attn-4 is installed and takes all `heads`."""
    if flash.kernels() is None:
        command = install_command("flash")
        raise UserError(f"attn_implementation is flash_attention_4, which needs flash-attn-4: {command}.")
    refused = {sizes for sizes in heads if not flash.is_used(sizes, "cuda", torch.bfloat16)}
    if refused:
        sizes = ", ".join(map(str, flash.HEAD_SIZES))
        found = ", ".join(sorted("x".join(map(str, dict.fromkeys(pair))) for pair in refused))
        raise UserError(
            f"attn_implementation is flash_attention_4, which is right for attention heads of {sizes} (Blackwell: up "
            f"to 128), and this model's have {found}: omit it."
        )


def lora_targets(config: ModelConfig) -> list[str] | None:
    """Names of the layers that get adapters. None: all linear layers except the head, which PEFT calls `all-linear`."""
    return None if config.lora_target_modules == ["all-linear"] else config.lora_target_modules


def add_adapters(model: PreTrainedModel, config: ModelConfig, seed: int) -> PreTrainedModel:
    """`model` with LoRA adapters. Raises UserError if `config` names layers that cannot have them."""
    peft, targets, whole = _peft(), lora_targets(config), list(config.lora_modules_to_save or [])
    _check_names(model, "lora_target_modules", targets)
    _check_names(model, "lora_modules_to_save", whole)
    tied = _tied_names(model)
    if adapted := [name for name in targets or [] if name.rpartition(".")[2] in tied]:
        raise UserError(
            f"lora_target_modules is {targets}, and {adapted[0]} is this model's head and embedding at once, which "
            "adapters cannot be: omit it, or train it in full with lora_modules_to_save."
        )
    tied_in_full = [name for name in whole if name.rpartition(".")[2] in tied]
    if tied_in_full and _sharded_at_load():
        raise UserError(
            f"lora_modules_to_save is {whole}, and {tied_in_full[0]} is this model's head and embedding at once, which "
            "FSDP and ZeRO-3 cannot train in full: use --accelerator ddp, or omit it."
        )
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets or "all-linear",
        exclude_modules=None if targets else unadaptable(model),
        modules_to_save=whole or None,
        ensure_weight_tying=bool(tied_in_full),  # else head and embedding would become two
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # adapters are initialized randomly, but equally in every run and on every rank
            return peft.get_peft_model(model, lora)
    except ValueError as error:
        raise UserError(f"lora_target_modules is {targets}: {error}") from error


def _check_names(model: nn.Module, option: str, wanted: Sequence[str] | None) -> None:
    """Raises UserError for a name that no layer has, of which PEFT says nothing if it finds another one."""
    names = [f".{name}" for name, _ in model.named_modules()]
    for name in wanted or []:
        if not any(full.endswith(f".{name}") for full in names):
            layers = sorted({full.rpartition(".")[2] for full, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise UserError(f"{option} is {wanted}, but the model has no layer {name}: it has {', '.join(layers)}.")


def _tied_names(model: PreTrainedModel) -> set[str]:
    """The last names of embedding and head, if they have the same weight."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return set()
    return {name.rpartition(".")[2] for name, module in model.named_modules() if module in (head, embedding)}


def _sharded_at_load() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled, is_fsdp_enabled

    return is_deepspeed_zero3_enabled() or is_fsdp_enabled()
