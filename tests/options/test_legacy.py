"""Recipes as huggingface/open-r1 and older TRL and transformers write them."""

import pytest
import yaml
from test_parser import grpo, sft, write

from open_r1.errors import UserError
from open_r1.options.legacy import translate
from open_r1.options.values import Given

BATCH = "per_device_train_batch_size"
COMMON = {
    "model_revision": "main",
    "torch_dtype": "bfloat16",
    "attn_implementation": "flash_attention_2",
    "bf16": True,
    "do_eval": False,
    "eval_strategy": "no",
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "hub_strategy": "every_save",
    "log_level": "info",
    "logging_strategy": "steps",
    "max_steps": -1,
    "output_dir": "data/run",
    "overwrite_output_dir": True,
    "report_to": ["wandb"],
    "save_total_limit": 1,
    "seed": 42,
}
DISTILL_7B = COMMON | {
    "model_name_or_path": "open-r1/Qwen2.5-Math-7B-RoPE-300k",
    "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    "dataset_name": "open-r1/Mixture-of-Thoughts",
    "dataset_config": "all",
    "dataset_num_proc": 12,
    "eos_token": "<|im_end|>",
    "hub_model_id": "OpenR1-Distill-7B",
    "learning_rate": "4.0e-05",
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "packing": False,
    "max_grad_norm": 0.2,
    "max_length": 32768,
    "push_to_hub": True,
    "save_strategy": "epoch",
    "use_liger_kernel": True,
    "warmup_ratio": 0.03,
}
SFT_DEMO = COMMON | {
    "model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct",
    "dataset_name": "open-r1/s1K-1.1",
    "dataset_configs": ["all"],
    "packing": True,
    "max_seq_length": 32768,
    "use_liger": True,
    "warmup_ratio": 0.05,
    "num_train_epochs": 15,
}
VLLM = {"use_vllm": True, "vllm_device": "auto", "vllm_gpu_memory_utilization": 0.7, "vllm_max_model_len": 4608}
GRPO_DEMO = (
    COMMON
    | VLLM
    | {
        "model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct",
        "dataset_name": "open-r1/OpenR1-Math-220k",
        "dataset_prompt_column": "problem",
        "system_prompt": "Think.",
        "log_completions": True,
        "logging_first_step": True,
        "max_prompt_length": 512,
        "max_completion_length": 1024,
        "num_generations": 16,
        "per_device_train_batch_size": 16,
        "reward_funcs": ["accuracy", "format", "tag_count"],
        "reward_weights": [1.0, 1.0, 1.0],
        "warmup_ratio": 0.1,
    }
)
CODEFORCES = GRPO_DEMO | {
    "callbacks": ["push_to_hub_revision"],
    "benchmarks": ["lcb_v4"],
    "beta": 0.0,
    "loss_type": "dr_grpo",
    "scale_rewards": False,
    "hub_model_revision": "v01.00",
    "lr_scheduler_type": "constant_with_warmup",
    "reward_funcs": ["cf_code", "code_format"],
    "reward_weights": [1.0, 0.1],
    "save_strategy": "steps",
    "save_steps": 0.05,
    "temperature": 0.7,
    "wandb_entity": "huggingface",
    "wandb_project": "open-r1",
    "mask_truncated_completions": True,
    "code_language": "cpp",
    "code_eval_test_batch_size": 20,
}


@pytest.fixture
def parse(tmp_path):
    def parse_with(parser, recipe, *argv):
        return parser(*write(tmp_path, yaml.safe_dump(recipe)), *argv)

    return parse_with


def test_distillation_recipes(parse, caplog):
    model, data, training = parse(sft, DISTILL_7B)
    assert (training.dtype, model.attn_implementation, data.dataset_config) == ("bfloat16", None, "all")
    assert (training.max_length, training.warmup_steps, training.learning_rate) == (32768, 0.03, 4e-5)
    assert training.use_liger_kernel is False
    assert (training.push_to_hub, training.hub_model_id) == (True, "OpenR1-Distill-7B")
    assert training.gradient_checkpointing_kwargs == {"use_reentrant": False}
    (warning,) = caplog.messages
    for named in ("overwrite_output_dir (the same command resumes", "use_liger_kernel (", "flash_attention_2 ("):
        assert named in warning
    model, data, training = parse(sft, SFT_DEMO)
    assert (data.dataset_config, training.max_length, training.packing) == ("all", 32768, True)


def test_grpo_recipes(parse, caplog):
    _, script, training = parse(grpo, GRPO_DEMO)
    assert (script.prompt_column, script.system_prompt) == ("problem", "Think.")
    assert (training.num_generations, training.warmup_steps, training.scale_rewards) == (16, 0.1, "group")
    (warning,) = caplog.messages
    for name in ("max_prompt_length", "log_completions", "vllm_device"):
        assert f"{name} (" in warning
    assert training.vllm_max_model_length == GRPO_DEMO["vllm_max_model_len"]
    _, script, training = parse(grpo, CODEFORCES)
    assert (training.scale_rewards, training.loss_type, training.hub_revision) == ("none", "dr_grpo", "v01.00")
    assert script.reward_funcs == ["cf_code", "code_format"]
    assert (training.wandb_entity, training.wandb_project) == ("huggingface", "open-r1")


def test_keys_that_are_switched_off_are_not_worth_a_word(parse, caplog):
    parse(sft, {"use_liger_kernel": False, "load_in_4bit": False, "overwrite_output_dir": False, "padding_free": False})
    assert caplog.messages == []


def test_keys_that_would_change_the_result_stop():
    for name, value in (("load_in_4bit", "true"), ("use_dora", "true"), ("label_smoothing_factor", "0.1")):
        with pytest.raises(UserError, match=f"command line: {name}: {value} is not supported: "):
            sft(f"--{name}", value)
    with pytest.raises(UserError, match="sync_ref_model: True is not supported: the reference model is always"):
        grpo("--sync_ref_model")


def test_the_later_layer_wins_under_any_name(parse):
    assert parse(sft, {"max_length": 7}, "--max_seq_length", "8")[2].max_length == 8
    assert parse(sft, {"warmup_steps": 10}, "--warmup_ratio", "0.5")[2].warmup_steps == 0.5
    assert parse(sft, {"torch_dtype": "auto"})[2].dtype is None
    assert parse(sft, {"attn_implementation": "eager"})[0].attn_implementation == "sdpa"
    for ratio in ("1.5", "many"):
        with pytest.raises(UserError, match=f"warmup_ratio is '?{ratio}'?: expected a number from 0 to 1"):
            sft("--warmup_ratio", ratio)


def test_dtype_is_the_dtype_to_compute_in(parse):
    assert parse(sft, {"torch_dtype": "bfloat16"})[2].bf16 is True
    assert parse(sft, {"dtype": "float32"})[2].bf16 is False
    assert parse(sft, {"dtype": "bfloat16", "bf16": False})[2].bf16 is False
    assert parse(sft, {"bf16": True}, "--dtype", "float32")[2].bf16 is False
    assert parse(sft, {"dtype": "bfloat16"}, "--no_bf16")[2].bf16 is False


def test_generation_batch_size_becomes_steps_per_generation(monkeypatch):
    argv = ["--per_device_train_batch_size", "4", "--generation_batch_size"]
    assert grpo(*argv, "32")[2].steps_per_generation == 8
    with pytest.raises(UserError, match=r"generation_batch_size is 30: expected a multiple of .*\(4 x 1\)"):
        grpo(*argv, "30")
    with pytest.raises(UserError, match="keep steps_per_generation"):
        grpo(*argv, "32", "--steps_per_generation", "4")
    monkeypatch.setenv("WORLD_SIZE", "2")
    layer = {name: Given(value, str(value), "here") for name, value in (("generation_batch_size", 32), (BATCH, 4))}
    assert translate([layer], {"steps_per_generation", BATCH})["steps_per_generation"].value == 4


def test_an_old_name_of_the_other_trainer_is_unknown():
    with pytest.raises(UserError, match="unknown option 'max_seq_length'"):
        grpo("--max_seq_length", "4096")


def test_several_dataset_configurations_belong_in_a_mixture(parse):
    with pytest.raises(UserError, match="list them in dataset_mixture"):
        parse(sft, {"dataset_configs": ["a", "b"]})


def test_only_the_first_process_warns(caplog, monkeypatch):
    layer = {"overwrite_output_dir": Given(True, "true", "here")}
    monkeypatch.setenv("RANK", "1")
    assert translate([layer], set()) == {}
    assert caplog.messages == []
    monkeypatch.setenv("RANK", "0")
    translate([layer], set())
    assert len(caplog.messages) == 1
