"""Packs whose tokens are split over processes: the loss and gradients of one process."""

import shutil

import pytest
import shared_packs
import torch
from runs import arguments, assert_same_weights, backend_env, launch, launch_script, make_folder, metrics
from shared_packs import CASES, HEADS, SEQUENCES, loss_and_gradients
from tiny_models import make

from open_r1 import grpo, sft
from open_r1.errors import UserError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What four processes compute, in groups of two and of four."""
    path = tmp_path_factory.mktemp("shared") / "found.pt"
    launch_script(shared_packs.__file__, [path], processes=4)
    return torch.load(path)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_loss_and_every_gradient_equal_those_of_one_process(found, size, case):
    kind, name, _ = case
    loss, entropies, wanted = loss_and_gradients(make(kind, **HEADS), SEQUENCES[name])
    shared_loss, shared_entropies, gradients = found[size, *case]
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(shared_entropies, entropies, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(
            gradients[parameter], gradient, rtol=1e-3, atol=2e-5 * gradient.abs().max().item(), msg=parameter
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def assert_same_run(one, two):
    """Figures of float32 runs that differ in the order of their sums."""
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        names = a.keys() - {"tokens_computed", "total_flos"}  # a pack is filled to a multiple of the group's size
        assert names <= b.keys()
        for name in names:
            assert b[name] == pytest.approx(a[name], rel=2e-3, abs=1e-6), (a["step"], name)


SAVING = {"gradient_checkpointing": "true", "activation_offloading": "true", "mlp_chunk_tokens": 20}


@pytest.mark.parametrize(
    ("backend", "options", "continued_by"),
    [
        pytest.param("ddp", {"use_peft": "true", "lora_dropout": 0.0}, 1, marks=pytest.mark.slow),
        ("fsdp", SAVING, 2),
        pytest.param("zero2", SAVING, 2, marks=pytest.mark.deepspeed),
        pytest.param("zero3", SAVING, 2, marks=pytest.mark.deepspeed),
    ],
)
def test_an_sft_run_with_evaluations_stopped_and_resumed_is_that_of_one_process(
    folder, tmp_path, backend, options, continued_by
):
    """Also resumed by one process."""
    options = {"packing": "true", "max_length": 128, **options}
    options |= {"max_tokens_per_microbatch": 50, "max_steps": 4, "save_steps": 2}
    options |= {"eval_strategy": "steps", "eval_steps": 2, "dataset_test_split": "train[:5]"}
    plain = {name: value for name, value in options.items() if name not in SAVING}
    sft.main(arguments(folder, "sft", tmp_path / "one", per_device_train_batch_size=2, **plain))
    options |= {"sequence_parallel_size": 2, "per_device_train_batch_size": 2}
    argv = arguments(folder, "sft", tmp_path / "two", **options)
    launch("sft", argv, processes=2, env=backend_env(backend))
    assert_same_run(metrics(tmp_path / "one"), whole := metrics(tmp_path / "two"))
    shutil.rmtree(tmp_path / "two/checkpoint-4")
    if continued_by == 1:
        sft.main([*argv, "--sequence_parallel_size", "1"])
    else:
        launch("sft", argv, processes=2, env=backend_env(backend))
    assert_same_run(whole, metrics(tmp_path / "two"))


def test_a_grpo_run_that_is_killed_and_resumed_is_that_of_one_process(folder, tmp_path, monkeypatch):
    """Inside a round; two data ranks of two processes, of which each samples two of the eight prompts of a round."""
    monkeypatch.setenv("KILL_AT", str(tmp_path / "countdown"))
    (tmp_path / "countdown").write_text("-1")
    options = {"reward_funcs": "odd_rewards:deadly", "max_tokens_per_microbatch": 50, "beta": 0.1, "max_steps": 5}
    options |= {"num_iterations": 2, "steps_per_generation": 2, "save_steps": 1, "save_total_limit": 1}
    grpo.main(arguments(folder, "grpo", tmp_path / "one", per_device_train_batch_size=16, **options))
    (tmp_path / "countdown").write_text("1")
    options |= {"sequence_parallel_size": 2, "per_device_train_batch_size": 8}
    argv = arguments(folder, "grpo", tmp_path / "two", **options)
    assert launch("grpo", argv, processes=4, check=False).returncode != 0
    assert 0 < len(metrics(tmp_path / "two")) < 5
    launch("grpo", argv, processes=4)
    assert_same_run(metrics(tmp_path / "one"), metrics(tmp_path / "two"))
    assert_same_weights(tmp_path / "one", tmp_path / "two", atol=2e-4)


def test_a_number_of_processes_that_does_not_divide_is_refused(folder, tmp_path):
    with pytest.raises(
        UserError, match="sequence_parallel_size is 2, which does not divide the 1 training process: st"
    ):
        sft.main(arguments(folder, "sft", tmp_path / "out", sequence_parallel_size=2))
    with pytest.raises(UserError, match="sequence_parallel_size is 3, which does not divide the model's 4 attention"):
        sft.main(arguments(folder, "sft", tmp_path / "out", sequence_parallel_size=3, dry_run="true"))
