"""Opens the engine that samples a run's completions, according to its options."""

import logging

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from open_r1.configs import GRPOConfig, ModelConfig, TrainConfig
from open_r1.engine.choose import LocalEngine, automatic_engine
from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.native.model import training_copy
from open_r1.engine.protocol import Engine
from open_r1.engine.transformers_engine import ReplicaEngine, TransformersEngine
from open_r1.errors import UserError
from open_r1.modeling.rope import length_rule
from open_r1.run.generators import LOOPBACK, server_urls
from open_r1.training.backends import splits_weights
from open_r1.training.model import empty_replica, load_config

logger = logging.getLogger(__name__)

MOST_PER_ROUND = 4096
"""Most completions of a round that the native engine decodes at once."""


def open_policy_engine(
    args: GRPOConfig,
    model_config: ModelConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: list[Dataset | None],
    reserved: int = 0,
) -> Engine:
    """The engine that `policy_engine` names; `transformers` is the policy itself, or a copy of it where its weights are
    sharded. `datasets` have the longest prompt; other requests (of benchmarks) need up to `reserved` tokens, prompt and
    completion together."""
    if args.max_staleness and not args.uses_vllm_servers:
        raise UserError(
            f"max_staleness is {args.max_staleness}, which needs an engine that samples while the policy trains: set "
            "engine to vllm (a server on separate GPUs), or max_staleness to 0."
        )
    name = policy_engine(args, model.config)
    _warn_of_unused_options(args, name)
    if name == "transformers":
        if not splits_weights(args):
            return TransformersEngine(model, tokenizer, max_tokens_per_batch=args.max_tokens_per_decode)
        replica = empty_replica(model_config, args)
        return ReplicaEngine(replica, tokenizer, max_tokens_per_batch=args.max_tokens_per_decode)
    longest = max(len(ids) for dataset in datasets if dataset is not None for ids in dataset["prompt_ids"])
    reserved = min(reserved, args.vllm_max_model_length or reserved)
    max_model_len = max(longest + args.max_completion_length, reserved)
    if name == "native":
        rollouts = args.per_device_train_batch_size * (args.steps_per_generation or 1)
        options = NativeOptions(
            max_num_seqs=min(MOST_PER_ROUND, rollouts),
            memory=args.vllm_gpu_memory_utilization,
            compile=not args.vllm_enforce_eager,
            release_memory=args.vllm_enable_sleep_mode,
        )
        engine = native_engine(args, model_config, model, tokenizer, max_model_len, options)
        if model_config.pure_bf16 and not model_config.use_peft and not splits_weights(args):
            engine.model.share(model)
        engine.start()
        return engine
    return _open_servers(args, model_config, tokenizer, max_model_len)


def policy_engine(args: GRPOConfig, config: PretrainedConfig) -> LocalEngine:
    """The engine for a policy with `config`; vLLM always runs in servers."""
    if args.uses_vllm_servers:
        return "vllm"
    if args.engine != "auto":
        return args.engine
    return automatic_engine(config, on_cuda=args.device.type == "cuda", wants_vllm=False)


def describe_engine(args: GRPOConfig, model_config: ModelConfig) -> str:
    """The engine in words, for dry runs."""
    name = policy_engine(args, load_config(model_config))
    if name == "native":
        return "the native engine, next to each training process"
    if name == "transformers":
        return "transformers (the policy itself)"
    if args.vllm_server_base_url or args.vllm_server_host not in LOOPBACK:
        return f"vLLM servers at {args.vllm_server_base_url or f'{args.vllm_server_host}:{args.vllm_server_port}'}"
    return f"a vLLM server at port {args.vllm_server_port}, or servers on GPUs without a training process"


def native_engine(
    args: TrainConfig,
    model_config: ModelConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_model_len: int,
    options: NativeOptions,
) -> NativeEngine:
    """The native engine with a copy of `model`, whose weights are random until the first update."""
    copy = empty_replica(model_config, args, model.config)
    if args.bf16 and not model_config.pure_bf16:
        copy = training_copy(copy)
    return NativeEngine(copy, tokenizer, max_model_len=max_model_len, options=options)


def _warn_of_unused_options(args: GRPOConfig, name: str) -> None:
    """One warning for all vLLM options that the engine does not use."""
    notes = []
    if args.use_vllm and name != "vllm":
        notes.append(f"use_vllm (engine is {args.engine}, which selects {name} here; engine: vllm selects vLLM)")
    if args.vllm_enforce_eager and name == "transformers":
        notes.append("vllm_enforce_eager (nothing is compiled)")
    if args.vllm_enable_sleep_mode and name != "native":
        notes.append("vllm_enable_sleep_mode (no memory is held during training)")
    if notes and args.process_index == 0:
        logger.warning("These options have no effect here: %s.", "; ".join(notes))


def _open_servers(
    args: GRPOConfig, model_config: ModelConfig, tokenizer: PreTrainedTokenizerBase, max_model_len: int
) -> Engine:
    from open_r1.engine.vllm.engine import VLLMServerEngine

    config = load_config(model_config).get_text_config()
    rule = length_rule(config)
    return VLLMServerEngine(
        server_urls(args, model_config),
        tokenizer,
        max_model_len=max_model_len,
        shape=(config.hidden_size, config.num_hidden_layers, config.vocab_size),
        most=rule.original if rule is not None and rule.kind == "longrope" else None,
        timeout=args.vllm_server_timeout,
        group_port=args.vllm_group_port,
    )
