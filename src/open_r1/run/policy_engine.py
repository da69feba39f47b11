"""The engine that writes a GRPO run's completions, as its options say."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.engine.protocol import Engine
from open_r1.engine.transformers_engine import ReplicaEngine, TransformersEngine
from open_r1.errors import UserError
from open_r1.run.spare_gpus import LOOPBACK, server_urls
from open_r1.training.backends import splits_weights
from open_r1.training.model import empty_replica, load_config, weights_name

MOST_SEQUENCES = 1024
"""Completions that one vLLM engine decodes at once at most."""
MOST_NATIVE_SEQUENCES = 4096
"""The same of the native engine."""


def open_policy_engine(
    args: GRPOConfig,
    model_config: ModelConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: list[Dataset | None],
    reserved: int = 0,
) -> Engine:
    """vLLM with `use_vllm`, the native engine with `engine: native`, else the policy itself, or a copy of it where
    processes hold parts of its weights. `datasets` tell the longest prompt; other requests have up to `reserved`
    tokens with their completions."""
    if args.max_staleness and not (args.use_vllm and args.vllm_mode == "server"):
        raise UserError(
            f"max_staleness is {args.max_staleness}, which needs an engine that writes while the policy trains: give "
            "use_vllm true and vllm_mode server, or max_staleness 0."
        )
    if not args.use_vllm and args.engine != "native":
        if not splits_weights(args):
            return TransformersEngine(model, tokenizer, max_tokens_per_batch=args.max_tokens_per_decode)
        replica = empty_replica(model_config, args)
        return ReplicaEngine(replica, tokenizer, max_tokens_per_batch=args.max_tokens_per_decode)
    longest = max(len(ids) for dataset in datasets if dataset is not None for ids in dataset["prompt_ids"])
    reserved = min(reserved, args.vllm_max_model_length or reserved)
    max_model_len = max(longest + args.max_completion_length, reserved)
    if args.engine == "native":
        return _native(args, model_config, model, tokenizer, max_model_len)
    open_engine = _served if args.vllm_mode == "server" else _colocated
    return open_engine(args, model_config, tokenizer, max_model_len)


def describe_engine(args: GRPOConfig) -> str:
    """Who would write, in words."""
    if args.engine == "native":
        return "the native engine beside each training process"
    if not args.use_vllm:
        return "transformers (the policy itself)"
    if args.vllm_mode == "colocate":
        return f"vLLM beside each training process, {args.vllm_engines_per_gpu} engine(s)"
    if args.vllm_server_base_url or args.vllm_server_host not in LOOPBACK:
        return f"vLLM servers at {args.vllm_server_base_url or f'{args.vllm_server_host}:{args.vllm_server_port}'}"
    return f"a vLLM server at port {args.vllm_server_port}, or servers on GPUs without a training process"


def _native(
    args: GRPOConfig,
    model_config: ModelConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_model_len: int,
) -> Engine:
    from open_r1.engine.native.engine import NativeEngine, NativeOptions
    from open_r1.engine.native.model import training_copy

    copy = empty_replica(model_config, args)
    if args.bf16 and not model_config.pure_bf16:
        copy = training_copy(copy)
    rollouts = args.per_device_train_batch_size * (args.steps_per_generation or 1)
    engine = NativeEngine(
        copy,
        tokenizer,
        max_model_len=max_model_len,
        options=NativeOptions(
            max_num_seqs=min(MOST_NATIVE_SEQUENCES, rollouts),
            memory=args.vllm_gpu_memory_utilization,
            compile=not args.vllm_enforce_eager,
            release_memory=args.vllm_enable_sleep_mode,
        ),
    )
    if model_config.pure_bf16 and not model_config.use_peft and not splits_weights(args):
        engine.model.share(model)
    engine.start()
    return engine


def _served(
    args: GRPOConfig, model_config: ModelConfig, tokenizer: PreTrainedTokenizerBase, max_model_len: int
) -> Engine:
    from open_r1.engine.vllm_server_engine import VLLMServerEngine

    config = load_config(model_config).get_text_config()
    return VLLMServerEngine(
        server_urls(args, model_config),
        tokenizer,
        max_model_len=max_model_len,
        shape=(config.hidden_size, config.num_hidden_layers, config.vocab_size),
        timeout=args.vllm_server_timeout,
        group_port=args.vllm_group_port,
    )


def _colocated(
    args: GRPOConfig, model_config: ModelConfig, tokenizer: PreTrainedTokenizerBase, max_model_len: int
) -> Engine:
    from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions, visible_devices

    device: Any = args.device
    rollouts = args.per_device_train_batch_size * (args.steps_per_generation or 1)
    options = VLLMOptions(
        model=weights_name(model_config),
        revision=model_config.model_revision,
        trust_remote_code=model_config.trust_remote_code,
        dtype="bfloat16" if args.bf16 else "auto",
        devices=(visible_devices()[device.index or 0],) if device.type == "cuda" else (),
        engines_per_device=args.vllm_engines_per_gpu,
        gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        max_num_seqs=max(8, min(MOST_SEQUENCES, -(-rollouts // args.vllm_engines_per_gpu))),
        enforce_eager=args.vllm_enforce_eager,
        sleep_mode=args.vllm_enable_sleep_mode,
        seed=args.seed + 1000 * args.process_index,
        log_dir=Path(args.output_dir or ".") / "run" / "vllm" / str(args.process_index),
    )
    engine = VLLMEngine(options, tokenizer, max_model_len=max_model_len)
    engine.start()
    return engine
