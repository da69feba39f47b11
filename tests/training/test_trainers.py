"""Invariants 2, 4, 5 and 7 of the design, on whole runs."""

import functools
import math
import shutil

import pytest
import torch
from runs import arguments, assert_same_weights, launch, make_folder, metrics, weights
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from open_r1 import grpo, sft
from open_r1.configs import ModelConfig
from open_r1.errors import UserError
from open_r1.modeling import compiling, flash, head
from open_r1.modeling.head import float32_product
from open_r1.report.recorder import read_rollouts
from open_r1.run import policy_engine
from open_r1.training.checkpoint_files import seal
from open_r1.training.model import load_causal_lm
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.sft import SFTTrainer

MAIN = {"sft": sft.main, "grpo": grpo.main}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def run(folder, task, out, **options):
    MAIN[task](arguments(folder, task, out, **options))
    return metrics(out)


def close(one, two, names, rel):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for name in names:
            assert (name in a) == (name in b)
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=rel, abs=1e-6), (a["step"], name)


GRPO_VARIANTS = [
    {"loss_type": "grpo"},
    {"loss_type": "bnpo", "importance_sampling_level": "sequence"},
    {"loss_type": "dr_grpo", "scale_rewards": "batch", "mask_truncated_completions": "true"},
    {"loss_type": "dapo", "num_iterations": 2, "beta": 0.1, "epsilon_high": 0.3},
    {"loss_type": "cispo", "num_iterations": 2, "epsilon_high": 2.0},
]


@pytest.mark.parametrize("options", GRPO_VARIANTS, ids=lambda o: o["loss_type"])
def test_the_token_budget_of_a_micro_batch_changes_nothing_grpo(folder, tmp_path, options):
    one = run(folder, "grpo", tmp_path / "one", max_tokens_per_microbatch=100_000, **options)
    many = run(folder, "grpo", tmp_path / "many", max_tokens_per_microbatch=30, **options)
    close(one, many, ["loss", "grad_norm", "reward", "entropy", "kl"], rel=2e-3)
    assert any(line["grad_norm"] > 0 for line in one)
    assert_same_weights(tmp_path / "one", tmp_path / "many", atol=2e-4)


@pytest.mark.parametrize("packing", ["false", "true"])
def test_accumulation_and_budget_change_nothing_sft(folder, tmp_path, packing):
    options = {"packing": packing, "max_length": 128}
    one = run(folder, "sft", tmp_path / "one", **options, per_device_train_batch_size=4)
    many = run(
        folder,
        "sft",
        tmp_path / "many",
        **options,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        max_tokens_per_microbatch=50,
    )
    close(one, many, ["loss", "grad_norm"], rel=1e-4)
    assert one[0]["loss"] > one[-1]["loss"]
    assert_same_weights(tmp_path / "one", tmp_path / "many", atol=2e-5)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("sft", {"packing": "true", "max_length": 128, "per_device_train_batch_size": 2}),
        ("grpo", {"reward_funcs": "odd_rewards:some_equal"}),
    ],
)
def test_two_processes_do_what_one_does(folder, tmp_path, task, options):
    """The last SFT batch of an epoch is not full, and one rank may have no group with signal."""
    half = arguments(folder, task, tmp_path / "two", **options)
    launch(task, half, processes=2)
    size = options.get("per_device_train_batch_size", 8)
    one = run(folder, task, tmp_path / "one", **{**options, "per_device_train_batch_size": 2 * size})
    close(one, metrics(tmp_path / "two"), ["loss", "grad_norm", "reward", "reward_std", "entropy"], rel=2e-3)
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)
    if task == "grpo":
        first, second = (read_rollouts(tmp_path / name / "run", 1).to_pylist() for name in ("one", "two"))
        key = "completion"
        assert sorted(r[key] for r in first) == sorted(r[key] for r in second)


def test_groups_without_signal_can_be_left_out(folder, tmp_path, monkeypatch):
    options = {"reward_funcs": "odd_rewards:some_equal", "save_strategy": "no", "max_tokens_per_microbatch": 200}
    skipped = run(folder, "grpo", tmp_path / "skipped", **options)
    assert any(0 < line["frac_reward_zero_std"] < 1 for line in skipped)
    monkeypatch.setattr(
        "open_r1.training.grpo_batches.carries_signal", lambda rollouts, size: [True] * len(rollouts.masked)
    )
    whole = run(folder, "grpo", tmp_path / "whole", **options)
    close(skipped, whole, ["loss", "grad_norm", "reward"], rel=1e-3)
    assert_same_weights(tmp_path / "skipped", tmp_path / "whole", atol=1e-5)


def test_prompts_that_are_shared_change_nothing(folder, tmp_path, monkeypatch):
    options = {"save_strategy": "no", "num_iterations": 2, "importance_sampling_level": "sequence", "beta": 0.1}
    shared = run(folder, "grpo", tmp_path / "shared", **options)
    monkeypatch.setattr(PackedTrainer, "share_prompts", False)
    alone = run(folder, "grpo", tmp_path / "alone", **options)
    close(shared, alone, ["loss", "grad_norm", "reward", "entropy", "kl"], rel=2e-3)
    assert all(a["tokens_computed"] < b["tokens_computed"] for a, b in zip(shared, alone, strict=True))
    assert_same_weights(tmp_path / "shared", tmp_path / "alone", atol=2e-4)


def test_truncated_completions_that_are_masked_teach_nothing(folder, tmp_path):
    """Two tokens are too few for this random model to stop, so every completion is masked and nothing moves."""
    options = {"save_strategy": "no", "max_completion_length": 2, "max_steps": 2}
    masked = run(folder, "grpo", tmp_path / "masked", mask_truncated_completions="true", **options)
    cut = [line["completions/clipped_ratio"] for line in masked]
    assert cut == [1.0, 1.0]
    assert [line["grad_norm"] for line in masked] == [0, 0]
    assert_same_weights(tmp_path / "masked", folder / "model")
    learned = run(folder, "grpo", tmp_path / "learned", **options)
    assert all(line["grad_norm"] > 0 for line in learned)


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_generation": 2, "num_iterations": 2, "max_steps": 7, "save_steps": 3}]
)
def test_a_run_killed_at_any_moment_continues_exactly_grpo(folder, tmp_path, options, monkeypatch):
    monkeypatch.setenv("KILL_AT", str(tmp_path / "countdown"))
    options = {"max_steps": 5, **options, "reward_funcs": "odd_rewards:deadly"}
    (tmp_path / "countdown").write_text("-1")
    whole = run(folder, "grpo", tmp_path / "whole", **options)
    killed_at = 1 if "num_iterations" in options else 3
    (tmp_path / "countdown").write_text(str(killed_at))
    argv = arguments(folder, "grpo", tmp_path / "killed", **options)
    assert launch("grpo", argv, check=False).returncode == -9
    before = metrics(tmp_path / "killed")
    assert 0 < len(before) < len(whole)
    assert run(folder, "grpo", tmp_path / "killed", **options) == whole
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert read_rollouts(tmp_path / "killed/run").equals(read_rollouts(tmp_path / "whole/run"))


def test_an_sft_run_killed_inside_an_epoch_or_a_checkpoint_continues_exactly(folder, tmp_path, monkeypatch):
    options = {"num_train_epochs": 2, "max_steps": -1, "packing": "true", "max_length": 96, "save_steps": 3}
    options["per_device_train_batch_size"] = 3
    whole = run(folder, "sft", tmp_path / "whole", **options)
    assert len(whole) > 6

    class Killed(BaseException):
        pass

    save = PackedTrainer._save_optimizer_and_scheduler

    def die_at_the_second(self, output_dir):
        if self.state.global_step == 6:
            raise Killed
        save(self, output_dir)

    monkeypatch.setattr(PackedTrainer, "_save_optimizer_and_scheduler", die_at_the_second)
    with pytest.raises(Killed):
        run(folder, "sft", tmp_path / "killed", **options)
    monkeypatch.undo()
    assert not (tmp_path / "killed/checkpoint-6").exists()
    assert run(folder, "sft", tmp_path / "killed", **options) == whole
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").glob("*staging*"))


def test_a_finished_run_is_not_trained_again_and_old_checkpoints_go(folder, tmp_path):
    first = run(folder, "sft", tmp_path / "out", save_total_limit=1, save_steps=1)
    before = weights(tmp_path / "out")
    assert [p.name for p in tmp_path.glob("out/checkpoint-*")] == ["checkpoint-4"]
    assert run(folder, "sft", tmp_path / "out", save_total_limit=1, save_steps=1) == first
    torch.testing.assert_close(weights(tmp_path / "out"), before, rtol=0, atol=0)


def test_evaluation_during_training(folder, tmp_path):
    shutil.copy(folder / "traces.jsonl", tmp_path / "traces.jsonl")
    options = {"eval_strategy": "steps", "eval_steps": 2, "dataset_test_split": "train[:6]", "save_strategy": "no"}
    lines = run(folder, "sft", tmp_path / "sft", **options)
    losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    lines = run(folder, "grpo", tmp_path / "grpo", num_generations_eval=2, **options)
    assert all(0 <= line["eval_reward"] <= 1 for line in lines if "eval_reward" in line)
    assert sum("eval_reward" in line for line in lines) == 2


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_lora_trains_adapters_only(folder, tmp_path, task):
    pytest.importorskip("peft")
    options = {"use_peft": "true", "lora_r": 4, "gradient_checkpointing": "true"}
    if task == "grpo":
        options["beta"] = 0.1
    lines = run(folder, task, tmp_path / "out", **options)
    assert all(line["grad_norm"] > 0 for line in lines)
    assert (tmp_path / "out/adapter_model.safetensors").exists()
    assert not (tmp_path / "out/model.safetensors").exists()
    if task == "grpo":
        assert lines[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert lines[-1]["kl"] > 0


def test_lora_leaves_out_the_layers_that_kernels_of_mamba_read_past_adapters(tmp_path):
    pytest.importorskip("peft")
    folder = make_folder(tmp_path)
    config = AutoConfig.for_model(
        "falcon_h1",
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8},
        **{"num_key_value_heads": 2, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
        vocab_size=AutoConfig.from_pretrained(folder / "model").vocab_size,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    run(folder, "sft", tmp_path / "out", use_peft="true", max_steps=1, save_strategy="no")
    adapted = load_file(tmp_path / "out/adapter_model.safetensors")
    assert any("mamba.in_proj" in name for name in adapted) and any("q_proj" in name for name in adapted)
    assert not any("out_proj" in name for name in adapted)


def test_a_folder_of_adapters_is_trained_further_on_its_merged_model(folder, tmp_path):
    pytest.importorskip("peft")
    lora = {"use_peft": "true", "lora_r": 4, "learning_rate": 0.05, "save_strategy": "no"}
    run(folder, "sft", tmp_path / "adapters", **lora)
    further = {"model_name_or_path": tmp_path / "adapters", "max_steps": 1, "learning_rate": 0, "save_strategy": "no"}
    lines = run(folder, "grpo", tmp_path / "grpo", **further)
    assert lines[0]["reward"] > 0
    changed = weights(tmp_path / "grpo")["model.layers.0.self_attn.q_proj.weight"]
    assert (changed != weights(folder / "model")["model.layers.0.self_attn.q_proj.weight"]).any()


def test_bfloat16_keeps_float32_master_weights(folder, tmp_path):
    """A step of 1e-6 would vanish in bfloat16 weights."""
    run(folder, "sft", tmp_path / "out", dtype="bfloat16", learning_rate=1e-6, lr_scheduler_type="constant")
    before, after = weights(folder / "model"), weights(tmp_path / "out/checkpoint-4")
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == torch.float32
    assert (after[name] != before[name]).float().mean() > 0.9
    assert weights(tmp_path / "out")[name].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 3}, r"num_generations is 3.* 8 completions"),
        ({"top_p": 0.9}, "top_p is 0.9"),
        ({"per_device_train_batch_size": 128}, "24 prompts.* takes 32"),
        ({"reward_weights": ["1.0", "2.0"]}, "reward_weights has 2 values for 1"),
        ({"reward_funcs": "acuracy"}, "Did you mean 'accuracy'"),
        ({"model_name_or_path": "/nowhere/model"}, "/nowhere/model"),
        ({"max_completion_length": 511}, "max_completion_length is 511.*512"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(folder, "grpo", tmp_path / "out", **options)


def test_the_saved_model_is_a_plain_hugging_face_folder(folder, tmp_path):
    run(folder, "sft", tmp_path / "out", save_strategy="no")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config._attn_implementation == "sdpa"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.pad_token == AutoTokenizer.from_pretrained(folder / "model").pad_token
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in torch.tensor(model.generation_config.eos_token_id)
    assert (tmp_path / "out/README.md").read_text().startswith("---")


def test_the_loss_that_training_shows_is_the_one_that_evaluation_measures(folder, tmp_path):
    """All rows in one batch, so both are the mean over the same tokens with the same weights."""
    options = {"eval_strategy": "no", "eval_on_start": "true", "dataset_test_split": "train", "max_steps": 1}
    lines = run(folder, "sft", tmp_path / "out", per_device_train_batch_size=24, **options)
    assert lines[0]["eval_loss"] == pytest.approx(lines[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_the_written_configuration_is_a_recipe_that_gives_the_same_run(folder, tmp_path, task):
    options = {"save_strategy": "no", **({"eos_token": "<|im_end|>"} if task == "sft" else {})}
    first = run(folder, task, tmp_path / "one", **options)
    MAIN[task](["--config", str(tmp_path / "one/run/config.yaml"), "--output_dir", str(tmp_path / "two")])
    assert metrics(tmp_path / "two") == first


def test_the_log_of_a_resumed_run_does_not_depend_on_how_often_it_prints(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KILL_AT", str(tmp_path / "countdown"))
    options = {"reward_funcs": "odd_rewards:vowels", "logging_steps": 3, "save_steps": 2}
    whole = run(folder, "grpo", tmp_path / "whole", **options)
    assert [line["step"] for line in whole] == [1, 2, 3, 4]
    for path in tmp_path.glob("whole/checkpoint-4"):
        shutil.rmtree(path)
    assert run(folder, "grpo", tmp_path / "whole", **options) == whole


def test_a_mistyped_checkpoint_costs_nothing(folder, tmp_path):
    lines = run(folder, "sft", tmp_path / "out")
    with pytest.raises(UserError, match="checkpoint-3 is not a complete checkpoint"):
        run(folder, "sft", tmp_path / "out", resume_from_checkpoint=tmp_path / "out/checkpoint-3")
    assert metrics(tmp_path / "out") == lines


def test_a_folder_is_not_continued_with_another_model_or_without_its_optimizer(folder, tmp_path):
    run(folder, "sft", tmp_path / "out")
    with pytest.raises(UserError, match="use_peft False, but use_peft is now True"):
        run(folder, "sft", tmp_path / "out", max_steps=6, use_peft="true")
    run(folder, "sft", tmp_path / "only", save_only_model="true")
    with pytest.raises(UserError, match="save_only_model"):
        run(folder, "sft", tmp_path / "only", save_only_model="true", max_steps=6)


def test_the_best_model_is_kept_when_a_finished_run_is_started_again(folder, tmp_path):
    options = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "dataset_test_split": "train[:6]",
        "load_best_model_at_end": "true",
        "metric_for_best_model": "eval_loss",
        "greater_is_better": "true",
    }
    run(folder, "sft", tmp_path / "out", **options)
    assert_same_weights(tmp_path / "out", tmp_path / "out/checkpoint-1")
    run(folder, "sft", tmp_path / "out", **options)
    assert_same_weights(tmp_path / "out", tmp_path / "out/checkpoint-1")


def test_a_checkpoint_inside_a_round_is_refused_to_another_number_of_processes(folder, tmp_path):
    options = {"num_iterations": 2, "max_steps": 3, "save_steps": 1, "save_total_limit": 1}
    run(folder, "grpo", tmp_path / "out", **options)
    path = tmp_path / "out/checkpoint-3/open_r1-rank0.pt"
    state = torch.load(path, weights_only=True)
    torch.save(state | {"world_size": 2, "settings": {}}, path)
    seal(path.parent)
    with pytest.raises(UserError, match=r"rollouts of 2 processes, but now there are 1.* multiple of 2"):
        run(folder, "grpo", tmp_path / "out", **(options | {"max_steps": 5}))


def test_dropout_does_not_part_the_trainer_from_the_sampler(folder, tmp_path):
    pytest.importorskip("peft")
    lines = run(folder, "grpo", tmp_path / "out", use_peft="true", lora_dropout=0.5, learning_rate=0.05)
    assert all(line["sampling/logprob_difference"] < 1e-4 for line in lines)


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_a_gradient_that_is_not_finite_ends_the_run(folder, tmp_path, task):
    options = {"learning_rate": 1e30, "lr_scheduler_type": "constant", "save_steps": 1, "max_steps": 5}
    with pytest.raises(UserError, match=r"step [23]: the gradient is not finite, and the weights are lost"):
        run(folder, task, tmp_path, **options)
    lines = [line for line in metrics(tmp_path) if "loss" in line]
    assert [line["grad_norm"] is None for line in lines] == [False] * (len(lines) - 1) + [True]
    assert not (tmp_path / f"checkpoint-{lines[-1]['step']}").exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_is_in_the_log_of_its_step_only(folder, tmp_path, monkeypatch):
    """DeepSpeed skips such a step and continues."""
    compute = SFTTrainer.pack_loss

    def pack_loss(trainer, pack, out):
        return compute(trainer, pack, out) + (math.nan if trainer.state.global_step == 1 else 0.0)

    monkeypatch.setattr(SFTTrainer, "pack_loss", pack_loss)
    lines = [line for line in run(folder, "sft", tmp_path / "out") if "loss" in line]
    assert [line["loss"] is None for line in lines] == [False, True, False, False]


def test_a_mixture_of_experts_logs_what_its_routers_do(tmp_path):
    """A step of learning between sampling and a second use of the rollouts changes some choices of experts."""
    folder = make_folder(tmp_path)
    config = AutoConfig.for_model(
        "qwen3_moe",
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8},
        **{"num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        vocab_size=AutoConfig.from_pretrained(folder / "model").vocab_size,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    lines = run(folder, "grpo", tmp_path / "out", num_iterations=2, learning_rate=0.1, max_steps=4)
    assert [line["router/other_experts"] == 0 for line in lines if "loss" in line] == [True, False, True, False]
    assert all(0 < line["router/entropy"] <= math.log(8) and 1 <= line["router/max_load"] <= 8 for line in lines)


def test_weights_that_are_missing_are_not_trained_from_random_values(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    tensors = {k: v for k, v in weights(folder / "model").items() if "layers.1.mlp.up" not in k}
    save_file(tensors, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        run(folder, "sft", tmp_path / "out", model_name_or_path=tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1"),
        ({"max_completion_length": 0}, "max_completion_length is 0"),
        ({"report_to": "tensorboardd"}, "report_to is 'tensorboardd'"),
        ({"resume_from_checkpoint": "/nowhere/checkpoint-3"}, "/nowhere/checkpoint-3 is not a complete checkpoint"),
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(folder, "grpo", tmp_path / "out", **options)


def test_an_output_folder_that_cannot_be_is_refused_before_the_model_is_loaded(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir is .*file"):
        run(folder, "sft", tmp_path / "file")


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_logits_are_computed_twice_only_with_checkpointing(folder, tmp_path, monkeypatch, task):
    products = []

    def product(hidden, weight, bias):
        products.append((weight.shape, len(hidden)))
        return float32_product(hidden, weight, bias)

    monkeypatch.setattr(head, "float32_product", product)
    lines, rows = {}, {}
    for checkpointing in ("false", "true"):
        products.clear()
        options = {"gradient_checkpointing": checkpointing, "max_steps": 2}
        lines[checkpointing] = run(folder, task, tmp_path / checkpointing, **options)
        shape = max(shape for shape, _ in products)  # (vocabulary, width): the head
        rows[checkpointing] = sum(count for other, count in products if other == shape)
    close(lines["false"], lines["true"], ["loss", "grad_norm"], rel=1e-5)
    assert 0 < rows["false"] < rows["true"] <= 2 * rows["false"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_compiled_layers_change_nothing(folder, tmp_path, checkpointing):
    options = {"packing": "true", "max_length": 128, "gradient_checkpointing": checkpointing}
    plain = run(folder, "sft", tmp_path / "plain", **options)
    compiled = run(folder, "sft", tmp_path / "compiled", torch_compile="true", **options)
    close(plain, compiled, ["loss", "grad_norm"], rel=1e-4)


def test_compiling_without_a_compiler_is_refused_in_a_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "can_compile", lambda: False)
    with pytest.raises(UserError, match="torch_compile is true, which needs a C compiler"):
        run(folder, "sft", tmp_path / "out", torch_compile="true")


def test_flash_attention_for_heads_that_it_gets_wrong_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(flash, "kernels", lambda: object())
    config = ModelConfig(model_name_or_path=str(folder / "model"), attn_implementation="flash_attention_4")
    with pytest.raises(UserError, match=r"attn_implementation is flash_attention_4, .* this model's have 8: omit it"):
        load_causal_lm(config)


def test_the_engine_that_is_chosen_on_a_gpu_agrees_with_the_trainer(folder, tmp_path, monkeypatch):
    """Choosing it looks into the policy's configuration, and must leave nothing there."""
    on_gpu = functools.partial(policy_engine.automatic_engine, on_cuda=True, wants_vllm=False)
    monkeypatch.setattr(policy_engine, "automatic_engine", lambda config, **_: on_gpu(config))
    lines = run(folder, "grpo", tmp_path / "out")
    assert all(line["sampling/logprob_difference"] < 1e-4 for line in lines)


@pytest.mark.parametrize("options", [{}, {"use_peft": "true"}, {"vllm_enable_sleep_mode": "true"}])
def test_with_the_native_engine_a_run_is_the_same(folder, tmp_path, options):
    """Invariant 10: its copy of the policy follows every update, of adapters the merged weights."""
    policy = run(folder, "grpo", tmp_path / "policy", **options)
    native = run(folder, "grpo", tmp_path / "native", engine="native", **options)
    close(native, policy, ["loss", "grad_norm", "reward", "entropy", "completions/mean_length"], rel=2e-3)
    for step in (1, 4):
        one, other = (read_rollouts(tmp_path / name / "run", step).to_pylist() for name in ("native", "policy"))
        assert [row["completion"] for row in one] == [row["completion"] for row in other]
