"""Translates keys of huggingface/open-r1 recipes and of older versions of TRL and transformers.

Renamed keys work. Keys without effect here are listed in one warning, with the reason. Keys that would change the
result but are not supported are errors, unless their value disables them.
"""

import os
from dataclasses import replace
from typing import Any

from open_r1.errors import UserError, warn_user
from open_r1.options.values import Given

RENAMED = {
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "dataset_configs": "dataset_config",
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "hub_model_revision": "hub_revision",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "chat_template_path": "chat_template",
    "vllm_importance_sampling_cap": "vllm_importance_sampling_clip_max",
    "vllm_max_model_len": "vllm_max_model_length",
}
"""Old keys and their current names. A key that is still an option is not renamed."""

_QUANTIZED = "quantized training is not supported"
_REFERENCE = "the reference model is always the initial one"
_NO_BONUS = "no entropy bonus is added; entropy is logged"
_FREE = "completions are not constrained"

_WITHOUT_EFFECT = {
    "overwrite_output_dir": "the same command resumes a run; delete the folder to start over",
    "use_liger_kernel use_liger_loss use_liger liger_kernel_config": "logprobs are always computed in chunks",
    "max_prompt_length": "prompts are never truncated; filter long ones out of the dataset",
    "log_completions num_completions_to_print log_unique_prompts log_completions_hub_repo "
    "wandb_log_unique_prompts": "every completion is saved in run/rollouts/",
    "log_multimodal": "models are text only",
    "dataset_kwargs": "columns are recognized by name",
    "packing_strategy": "packing is always best-fit, and documents are never split to fill a row",
    "padding_free pad_to_multiple_of eval_packing group_by_length": "no batch is padded",
    "pad_token": "padding is handled in memory; the tokenizer does not change",
    "shuffle_dataset": "every epoch has a new order",
    "use_cache": "training never uses a cache",
    "ds3_gather_for_generation": "weights are sent to the engine one layer at a time",
    "cache_implementation use_transformers_paged": "the transformers engine picks its own cache",
    "use_transformers_continuous_batching transformers_continuous_batching_config": "the transformers engine batches "
    "on its own",
    "push_to_hub_revision overwrite_hub_revision": "push_to_hub with hub_revision does this",
    "wandb_run_group": "use run_name",
    "logging_dir": "trackers choose their own folders",
    "save_safetensors": "checkpoints are always safetensors",
    "include_tokens_per_second": "tokens per second are always logged",
    "num_processes": "the launcher sets the number of processes",
    "use_mps_device": "devices are detected automatically",
    "local_rank": "processes are detected automatically",
    "tokenizer_name_or_path": "the tokenizer is that of model_name_or_path",
    "lora_task_type": "the task is always CAUSAL_LM",
    "sapo_temperature_neg sapo_temperature_pos": "only loss_type sapo uses it",
    "vespo_k_pos vespo_k_neg vespo_lambda_pos vespo_lambda_neg": "only loss_type vespo uses it",
    "entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target": "only an adaptive entropy bonus uses it",
    "ignore_bias_buffers": "such buffers are never synchronized",
    "morph_router_url": "there is no code_provider morph",
    "code_language code_provider code_eval_test_batch_size code_eval_scoring_mode parallel_code_exec_per_proc "
    "e2b_router_url ioi_provider cosine_min_value_wrong cosine_max_value_wrong cosine_min_value_correct "
    "cosine_max_value_correct cosine_max_len repetition_n_grams repetition_max_penalty max_completion_len "
    "soft_punish_cache": "only the rewards of grpo use it",
    "vllm_engines_per_gpu": "one engine fills a GPU",
    "vllm_model_impl vllm_device vllm_dtype vllm_enable_prefix_caching": "vLLM is configured automatically",
}
IGNORED = {name: reason for names, reason in _WITHOUT_EFFECT.items() for name in names.split()}
"""Keys without effect, and the reason."""

UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "load_in_8bit": ((False,), f"{_QUANTIZED}; use_peft with bf16 weights is"),
    "load_in_4bit": ((False,), f"{_QUANTIZED}; use_peft with bf16 weights is"),
    "bnb_4bit_quant_type": (("nf4",), _QUANTIZED),
    "bnb_4bit_quant_storage": ((None,), _QUANTIZED),
    "use_bnb_nested_quant": ((False,), _QUANTIZED),
    "use_dora": ((False,), "only plain LoRA is supported"),
    "use_rslora": ((False,), "only plain LoRA is supported; scale lora_alpha instead"),
    "sync_ref_model": ((False,), _REFERENCE),
    "ref_model_mixup_alpha": ((0.6,), _REFERENCE),
    "ref_model_sync_steps": ((512,), _REFERENCE),
    "top_entropy_quantile": ((1, 1.0), "the model learns from all tokens"),
    "entropy_coef": ((0, 0.0), _NO_BONUS),
    "use_adaptive_entropy": ((False,), _NO_BONUS),
    "reward_model_name_or_path": ((None,), "rewards are functions: set reward_funcs"),
    "datasets": ((None, []), "list them in dataset_mixture, with id and weight"),
    "multi_objective_aggregation": (("sum_then_normalize",), "rewards are summed, then normalized"),
    "off_policy_mask_threshold": ((None,), "use vllm_importance_sampling_mode: sequence_mask"),
    "vllm_tensor_parallel_size": (
        (1,),
        "an engine on the training GPUs uses one GPU; serve larger models with engine: vllm",
    ),
    "vllm_guided_decoding_regex": ((None,), _FREE),
    "vllm_structured_outputs_regex": ((None,), _FREE),
    "vllm_importance_sampling_clip_min": ((None,), "only the upper bound, ..._clip_max, is supported"),
    "repetition_penalty": ((1, 1.0), "the trainer could not reproduce the sampled distribution"),
    "generation_kwargs": ((None, {}), "set the sampling options directly, such as temperature"),
    "model_init_kwargs": ((None, {}), "set the options directly, such as dtype"),
    "truncation_mode": (("keep_start",), "long sequences are truncated at the end"),
    "router_aux_loss_coef": ((None, 0, 0.0), "no auxiliary loss is added"),
    "disable_dropout": ((False,), "set the dropout of the model's config.json instead"),
    "cast_lm_head_to_fp32": ((False,), "logits are computed in the dtype of the model, logprobs in float32"),
    "dataset_streaming": ((False,), "datasets are read in full; use a slice, as in `train[:10000]`"),
    "lora_target_parameters": ((None,), "use lora_target_modules"),
    "max_tool_calling_iterations": ((None,), "tools are not supported"),
    "loss_type": (("nll", "chunked_nll"), "SFT minimizes the negative log-likelihood"),
    "label_smoothing_factor": ((0, 0.0), "the losses have no label smoothing"),
    "average_tokens_across_devices": ((True,), "losses are always averaged over the tokens of all devices"),
    "auto_find_batch_size": ((False,), "memory is bounded by max_tokens_per_microbatch"),
}
"""Unsupported keys that would change the result: the values that disable them, and what to do instead."""

_UNUSED = {
    "use_liger_kernel",
    "liger_kernel_config",
    "use_cache",
    "label_smoothing_factor",
    "average_tokens_across_devices",
    "auto_find_batch_size",
}
"""Options of `TrainingArguments` that our trainers do not use: the tables above apply although the options exist."""

UNDERSTOOD = {*RENAMED, *IGNORED, *UNSUPPORTED, "warmup_ratio", "generation_batch_size"}


def translate(layers: list[dict[str, Given]], known: set[str]) -> dict[str, Given]:
    """Merges `layers` (later ones win) after replacing old keys; `known` are the current options.

    Keys that are neither old nor known are kept. Raises `UserError` for a key that one layer has under two names, and
    for one that is not supported.
    """
    notes: dict[str, str] = {}
    merged: dict[str, Given] = {}
    for layer in layers:
        today: dict[str, Given] = {}
        for name, given in layer.items():
            if name not in known or name in _UNUSED:
                name, given = _rename(name, given, known)
                if _without_effect(name, given, notes):
                    continue
            if name in today:
                raise UserError(f"{given.where}: {name} is set twice, once under an older name: keep only {name}.")
            today[name] = _translate_value(name, given, notes)
        _settle_dtype(merged, today)
        merged |= today
    if "generation_batch_size" in merged:
        merged["steps_per_generation"] = _steps_per_generation(merged)
        del merged["generation_batch_size"]
    if notes:
        listed = "; ".join(f"{name} ({why})" for name, why in notes.items())
        warn_user("These options have no effect here: %s.", listed)
    return merged


def _rename(name: str, given: Given, known: set[str]) -> tuple[str, Given]:
    if name == "warmup_ratio":
        ratio = given.value
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise UserError(f"{given.where}: warmup_ratio is {ratio!r}: expected a number from 0 to 1.")
        return "warmup_steps", given
    target = RENAMED.get(name, name)
    return (target, given) if target in known else (name, given)


def _without_effect(name: str, given: Given, notes: dict[str, str]) -> bool:
    """Whether `name` can be dropped. Adds the reason to `notes`, unless the value disables the option anyway."""
    if name in UNSUPPORTED:
        neutral, instead = UNSUPPORTED[name]
        if given.value not in neutral:
            shown = given.value if given.text is None else given.text
            raise UserError(f"{given.where}: {name}: {shown} is not supported: {instead}.")
        return True
    if name in IGNORED and given.value not in (None, False):
        notes[name] = IGNORED[name]
    return name in IGNORED


def _translate_value(name: str, given: Given, notes: dict[str, str]) -> Given:
    """Replaces old forms of values: one dataset configuration in a list, a boolean `scale_rewards`, `dtype: auto`, and
    other attention kernels."""
    value = given.value
    if name == "scale_rewards" and isinstance(value, bool):
        return replace(given, value="group" if value else "none", text=None)
    if name == "dataset_config" and isinstance(value, list):
        if len(value) != 1:
            raise UserError(f"{given.where}: {name} has {len(value)} configurations: list them in dataset_mixture.")
        return replace(given, value=value[0], text=None)
    if name == "dtype" and value == "auto":
        return replace(given, value=None, text=None)
    if name == "attn_implementation" and isinstance(value, str):
        if "flash" in value and value != "flash_attention_4":
            notes[f"attn_implementation: {value}"] = "the default kernel is used"
            return replace(given, value=None, text=None)
        if value == "eager":
            notes["attn_implementation: eager"] = "sdpa computes the same"
            return replace(given, value="sdpa", text=None)
    return given


def _settle_dtype(earlier: dict[str, Given], layer: dict[str, Given]) -> None:
    """Drops `dtype` or `bf16` if they contradict each other: the later layer wins, and `bf16` within a layer."""
    if "bf16" in layer:
        dtype = layer.get("dtype") or earlier.get("dtype")
        if dtype is not None and (dtype.value == "bfloat16") != layer["bf16"].value:
            layer.pop("dtype", None)
            earlier.pop("dtype", None)
    elif "dtype" in layer:
        earlier.pop("bf16", None)


def _steps_per_generation(merged: dict[str, Given]) -> Given:
    """`steps_per_generation` from TRL's `generation_batch_size`: the completions of a round, over all processes."""
    given = merged["generation_batch_size"]
    if given.value is None:
        return merged.get("steps_per_generation", given)
    if "steps_per_generation" in merged and merged["steps_per_generation"].value is not None:
        raise UserError(
            f"{given.where}: generation_batch_size and steps_per_generation set the same thing: keep "
            "steps_per_generation."
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_device = merged["per_device_train_batch_size"].value if "per_device_train_batch_size" in merged else 8
    whole, size = given.value, per_device * processes
    if not isinstance(whole, int) or whole <= 0 or whole % size:
        raise UserError(
            f"{given.where}: generation_batch_size is {whole}: expected a multiple of per_device_train_batch_size x "
            f"processes ({per_device} x {processes})."
        )
    return replace(given, value=whole // size, text=None)
