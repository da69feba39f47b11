"""Invariants 2 and 7 of the design on every backend: two processes end where one does, also killed and resumed."""

import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from runs import arguments, assert_same_weights, backend_env, launch, make_folder, metrics, weights

from open_r1 import grpo, sft
from open_r1.errors import UserError
from open_r1.training import backends, deepspeed_setup
from open_r1.training.checkpoint_files import seal

MAIN = {"sft": sft.main, "grpo": grpo.main}
DEEPSPEED = [pytest.param(name, marks=pytest.mark.deepspeed) for name in ("zero2", "zero3")]
SLOW = {name: pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "fsdp")}
FIGURES = ("loss", "grad_norm", "reward", "entropy", "kl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def on_one_process(folder, task, out, **options):
    """The same run, as large a step, plain."""
    options["per_device_train_batch_size"] *= 2
    MAIN[task](arguments(folder, task, out, **options))
    return metrics(out)


def assert_same_run(one, two):
    """Figures of float32 runs that differ in the order of their sums."""
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        for name in FIGURES:
            assert (name in a) == (name in b)
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=2e-3, abs=1e-6), (a["step"], name)


@pytest.mark.parametrize("backend", [SLOW["ddp"], "fsdp", *DEEPSPEED])
def test_grpo_on_two_processes_killed_and_resumed_ends_where_one_does(folder, tmp_path, backend, monkeypatch):
    """With a reference model, two passes over each round, several packs a step, and a rank without any signal."""
    monkeypatch.setenv("KILL_AT", str(tmp_path / "countdown"))
    (tmp_path / "countdown").write_text("-1")
    options = {"reward_funcs": "odd_rewards:deadly", "per_device_train_batch_size": 4, "max_tokens_per_microbatch": 100}
    options |= {"beta": 0.1, "num_iterations": 2, "max_steps": 5, "save_steps": 1, "save_total_limit": 1}
    one = on_one_process(folder, "grpo", tmp_path / "one", **options)
    (tmp_path / "countdown").write_text("1")
    argv, env = arguments(folder, "grpo", tmp_path / "two", **options), backend_env(backend)
    assert launch("grpo", argv, processes=2, env=env, check=False).returncode != 0
    assert 0 < len(metrics(tmp_path / "two")) < 5
    launch("grpo", argv, processes=2, env=env)
    assert_same_run(one, metrics(tmp_path / "two"))
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)


@pytest.mark.parametrize("backend", ["fsdp", *DEEPSPEED])
def test_the_native_engine_follows_weights_that_are_split(folder, tmp_path, backend):
    options = {"engine": "native", "per_device_train_batch_size": 4, "max_steps": 2}
    one = on_one_process(folder, "grpo", tmp_path / "one", **options)
    argv = arguments(folder, "grpo", tmp_path / "two", **options)
    launch("grpo", argv, processes=2, env=backend_env(backend))
    assert_same_run(one, metrics(tmp_path / "two"))
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)


def zero3_of_small_parts(folder):
    """ZeRO-3 that splits the smallest weights too and lets go of them after every use, as it does with large ones."""
    options = {f"stage3_{name}": 0 for name in ("param_persistence_threshold", "max_reuse_distance")}
    auto = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
    zero = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True, **options}
    (folder / "zero3.json").write_text(json.dumps(auto | {"gradient_clipping": "auto", "zero_optimization": zero}))
    kept = {name: value for name, value in backend_env("zero3").items() if "_DEEPSPEED_" not in name}
    return kept | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(folder / "zero3.json")}


@pytest.mark.deepspeed
@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_zero3_fetches_a_layer_at_a_time(folder, tmp_path, checkpointing, monkeypatch):
    monkeypatch.setenv("FETCHES", str(tmp_path / "fetches"))
    options = {"max_steps": 3, "per_device_train_batch_size": 4, "beta": 0.1, "gradient_checkpointing": checkpointing}
    options |= {"max_tokens_per_microbatch": 100}
    one = on_one_process(folder, "grpo", tmp_path / "one", **options)
    argv = arguments(folder, "grpo", tmp_path / "two", **options | {"reward_funcs": "odd_rewards:noting_fetches"})
    launch("grpo", argv, processes=2, env=zero3_of_small_parts(tmp_path))
    assert_same_run(one, metrics(tmp_path / "two"))
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)
    kinds = dict(line.split() for line in (tmp_path / "fetches").read_text().splitlines())
    assert "Qwen2DecoderLayer" in kinds
    assert not {"Qwen2Attention", "Qwen2MLP", "Linear"} & set(kinds)


@pytest.mark.deepspeed
def test_deepspeed_needs_no_compiler(folder, tmp_path):
    """With no folder of compiled operations to take any from."""
    env = backend_env("zero2") | {"CXX": "/no/compiler", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    argv = arguments(folder, "sft", tmp_path / "out", max_steps=1, per_device_train_batch_size=2)
    launch("sft", argv, processes=2, env=env)
    assert not (tmp_path / "extensions").exists()


@pytest.mark.parametrize("backend", [*SLOW.values(), *DEEPSPEED])
def test_sft_on_two_processes_ends_where_one_does_and_continues_on_another_number_or_says_why_not(
    folder, tmp_path, backend
):
    options = {"packing": "true", "max_length": 128, "max_tokens_per_microbatch": 100, "max_steps": 4, "save_steps": 2}
    options |= {"gradient_checkpointing": "true", "per_device_train_batch_size": 2}
    one = on_one_process(folder, "sft", tmp_path / "one", **options)
    out, env = tmp_path / "two", backend_env(backend)
    launch("sft", arguments(folder, "sft", out, **options), processes=2, env=env)
    assert_same_run(one, metrics(out))
    assert_same_weights(tmp_path / "one", out, atol=2e-5)
    assert_same_weights(out / "checkpoint-4", out)

    shutil.rmtree(out / "checkpoint-4")
    options["per_device_train_batch_size"] = 4
    done = launch("sft", arguments(folder, "sft", out, **options), env=env, check=False)
    if backend in ("ddp", "fsdp"):
        assert done.returncode == 0, done.stderr[-3000:]
        assert_same_run(one, metrics(out))
        assert_same_weights(tmp_path / "one", out, atol=2e-5)
    else:
        assert done.returncode != 0
        assert "has DeepSpeed's shards of 2 processes, but now there are 1: continue with 2" in done.stderr


@pytest.mark.parametrize("backend", [SLOW["fsdp"], *DEEPSPEED])
def test_in_bfloat16_the_final_model_and_checkpoints_are_folders_in_bfloat16(folder, tmp_path, backend):
    """Steps of 1e-6 would vanish in bfloat16 weights; the checkpoint continues from float32 ones."""
    from transformers import AutoModelForCausalLM

    options = {"bf16": "true", "max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 2}
    argv, env = arguments(folder, "sft", tmp_path / "two", **options), backend_env(backend)
    launch("sft", argv, processes=2, env=env)
    for path in (tmp_path / "two", tmp_path / "two/checkpoint-1"):
        assert AutoModelForCausalLM.from_pretrained(path).dtype == torch.bfloat16
    first = metrics(tmp_path / "two")
    launch("sft", argv, processes=2, env=env)  # finished: nothing is trained again
    assert metrics(tmp_path / "two") == first
    shutil.rmtree(tmp_path / "two/checkpoint-2")
    launch("sft", argv, processes=2, env=env)
    assert metrics(tmp_path / "two") == first


@pytest.mark.parametrize("backend", [SLOW["fsdp"], *DEEPSPEED])
def test_lora_on_two_processes_ends_where_one_does(folder, tmp_path, backend):
    pytest.importorskip("peft")
    options = {"use_peft": "true", "lora_r": 4, "beta": 0.1, "per_device_train_batch_size": 4, "max_steps": 3}
    one = on_one_process(folder, "grpo", tmp_path / "one", **options)
    launch("grpo", arguments(folder, "grpo", tmp_path / "two", **options), processes=2, env=backend_env(backend))
    assert_same_run(one, metrics(tmp_path / "two"))
    assert (tmp_path / "two/adapter_model.safetensors").exists()


@pytest.mark.parametrize("backend", [SLOW["fsdp"], *DEEPSPEED])
def test_compiled_layers_train_as_plain_ones_do(folder, tmp_path, backend):
    options = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_checkpointing": "true"}
    one = on_one_process(folder, "sft", tmp_path / "one", **options)
    argv = arguments(folder, "sft", tmp_path / "two", torch_compile="true", **options)
    launch("sft", argv, processes=2, env=backend_env(backend))
    assert_same_run(one, metrics(tmp_path / "two"))
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-5)


def test_a_reward_that_fails_in_one_process_ends_all_of_them(folder, tmp_path):
    argv = arguments(folder, "grpo", tmp_path / "out", reward_funcs="odd_rewards:broken_on_rank_1")
    done = launch("grpo", argv, processes=2, check=False, torchrun=True)
    assert "ZeroDivisionError" in done.stderr or "division by zero" in done.stderr
    assert "a reward failed in another process" in done.stderr


def test_what_the_first_process_refuses_ends_all_with_its_sentence(folder, tmp_path):
    done = launch("sft", arguments(folder, "sft", "/proc/none"), processes=2, check=False, torchrun=True)
    assert done.stderr.count("error: output_dir is /proc/none, which cannot be written to") == 1
    assert "[rank1]" not in done.stderr


def test_a_checkpoint_of_another_backend_is_refused(folder, tmp_path):
    options = {"max_steps": 1, "save_steps": 1}
    sft.main(arguments(folder, "sft", tmp_path / "out", **options))
    path = tmp_path / "out/checkpoint-1/open_r1-rank0.pt"
    torch.save(torch.load(path, weights_only=True) | {"backend": "fsdp2"}, path)
    seal(path.parent)
    with pytest.raises(UserError, match=r"written by FSDP2, but this is one process, .*model_name_or_path"):
        sft.main(arguments(folder, "sft", tmp_path / "out", **options | {"max_steps": 2}))
    assert weights(tmp_path / "out")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "FSDP was requested, but this is one process on cpu"),
        ({"WORLD_SIZE": "2"}, "2 processes were requested, but accelerate started each of them as a separate run"),
        (backends.requested_backend(2, "MULTI_GPU"), "2 processes were requested"),
        (backends.requested_backend(1, "FSDP"), "FSDP was requested, but this is one process on cpu"),
        (backends.requested_backend(1, "DEEPSPEED"), "DeepSpeed was requested, but this is one process on cpu"),
    ],
)
def test_what_does_not_run_as_it_was_asked_for_is_refused(environment, message, monkeypatch):
    accelerator = Accelerator(cpu=True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        backends.check_backend(accelerator)


def test_deepspeed_that_was_asked_for_and_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(deepspeed_setup, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install -e \S*deepspeed"):
        deepspeed_setup.prepare_deepspeed()
