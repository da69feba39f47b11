"""What `engine: auto` means, on machines that are only said to have GPUs."""

import logging

import pytest
import torch
from transformers import AutoConfig

from open_r1.configs import GRPOConfig
from open_r1.engine import choose, opening
from open_r1.engine.choose import automatic_engine
from open_r1.engine.options import EngineOptions
from open_r1.errors import UserError
from open_r1.run.policy_engine import _warn_of_unused_options, policy_engine

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = AutoConfig.for_model("llama", **SMALL, num_key_value_heads=2, vocab_size=64)
EXPERTS = AutoConfig.for_model("mixtral", **SMALL, num_key_value_heads=2, vocab_size=64)


@pytest.fixture(params=[None, "0.31.0"], ids=["no vllm", "vllm"])
def vllm(request, monkeypatch):
    """The version of vLLM that is installed."""
    monkeypatch.setattr(choose, "version_of_vllm", lambda: request.param)
    return request.param


@pytest.fixture
def grpo(tmp_path, monkeypatch):
    def who(config=LLAMA, device="cuda", **options):
        args = GRPOConfig(output_dir=str(tmp_path), report_to="none", **options)
        with monkeypatch.context() as patch:
            patch.setattr(GRPOConfig, "device", torch.device(device))
            name = policy_engine(args, config)
        _warn_of_unused_options(args, name)
        return name

    return who


@pytest.mark.parametrize("wants_vllm", [False, True])
def test_native_on_cuda_else_vllm_if_wanted_and_installed_else_transformers(vllm, wants_vllm):
    assert automatic_engine(LLAMA, on_cuda=True, wants_vllm=wants_vllm) == "native"
    other = "vllm" if vllm and wants_vllm else "transformers"
    assert automatic_engine(LLAMA, on_cuda=False, wants_vllm=wants_vllm) == other
    assert automatic_engine(EXPERTS, on_cuda=True, wants_vllm=wants_vllm) == other


def test_why_a_model_is_not_for_the_native_engine_is_said(caplog, monkeypatch):
    automatic_engine(EXPERTS, on_cuda=True, wants_vllm=False)
    assert "cannot decode mixtral: it has experts" in caplog.text
    assert "Using this engine instead: transformers" in caplog.text
    monkeypatch.setattr("open_r1.modeling.compiling.can_compile", lambda: False)
    assert automatic_engine(LLAMA, on_cuda=True, wants_vllm=False) == "transformers"
    assert "no C compiler" in caplog.text


@pytest.mark.parametrize("options", [{}, {"use_vllm": False}, {"use_vllm": True}, {"vllm_mode": "server"}])
def test_a_recipe_with_or_without_use_vllm_takes_the_native_engine(grpo, options):
    assert grpo(**options) == "native"


def test_servers_stay_vllm_and_an_explicit_engine_wins(grpo):
    served = {"use_vllm": True, "vllm_mode": "server"}
    assert grpo(**served) == grpo(engine="vllm", vllm_mode="server") == grpo(EXPERTS, "cpu", **served) == "vllm"
    assert grpo(engine="vllm") == grpo(engine="vllm", use_vllm=False) == "vllm"
    assert grpo(EXPERTS, use_vllm=True) == "transformers"  # vLLM beside the training there is not
    for engine in ("native", "transformers"):
        assert grpo(engine=engine, **served) == grpo(engine=engine, device="cpu") == engine


def test_options_of_vllm_without_effect_are_named_in_one_warning(grpo, caplog):
    with caplog.at_level(logging.WARNING):
        grpo(use_vllm=True, vllm_enable_sleep_mode=True, vllm_enforce_eager=True)
    (record,) = caplog.records
    said = record.getMessage()
    assert "use_vllm (engine is auto, which selects native here; engine: vllm selects vLLM)" in said
    assert "vllm_enable_sleep_mode" not in said and "vllm_enforce_eager" not in said
    caplog.clear()
    grpo()
    grpo(use_vllm=True, vllm_mode="server")
    assert not caplog.records
    grpo(engine="transformers", vllm_enable_sleep_mode=True, vllm_enforce_eager=True)
    assert "vllm_enforce_eager (nothing is compiled); vllm_enable_sleep_mode (no" in caplog.records[0].getMessage()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Names of engines that `open_engine` opens, for a folder that has a configuration."""

    def name(gpus, config=LLAMA, **options):
        config.save_pretrained(tmp_path)
        for module in (choose, opening):
            monkeypatch.setattr(module, "gpu_count", lambda: gpus)
        for engine in ("vllm", "transformers"):
            monkeypatch.setattr(opening, f"_open_{engine}", lambda options, engine=engine: engine)
        monkeypatch.setattr(opening, "open_native", lambda options: "native")
        monkeypatch.setattr(opening, "_open_parallel", lambda options, engines: f"native on {engines}")
        return opening.open_engine(EngineOptions(str(tmp_path), **options))

    return name


def test_models_that_fit_a_gpu_need_no_vllm_on_one_or_several(opened, vllm):
    assert opened(0) == "transformers"
    assert opened(1) == opened(8, data_parallel_size=1) == "native"
    assert opened(1, EXPERTS) == ("vllm" if vllm else "transformers")
    assert opened(8) == opened(8, engine="native") == "native on 8"
    assert opened(8, data_parallel_size=3) == "native on 3"
    assert opened(0, engine="native", data_parallel_size=2) == "native on 2"  # on the CPU
    with pytest.raises(UserError, match=r"data_parallel_size 3 x tensor_parallel_size 1 needs 3 GPUs, but 2 are"):
        opened(2, data_parallel_size=3)


def test_gpus_that_share_an_engine_need_vllm(opened, vllm):
    if vllm:
        assert opened(2, tensor_parallel_size=2) == "vllm"
    else:
        with pytest.raises(UserError, match=r"tensor_parallel_size is 2, which only vLLM"):
            opened(2, tensor_parallel_size=2)


def test_a_model_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "gpu_count", lambda: 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        opening.open_engine(EngineOptions(str(tmp_path)))
