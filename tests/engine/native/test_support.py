import pytest
import torch
from native_models import KINDS, SIZE
from transformers import AutoConfig, AutoModelForCausalLM

from open_r1.engine.native.support import RECORDED_ATTENTION, check_supported, why_unsupported
from open_r1.errors import UserError


def test_a_model_that_is_judged_computes_as_before():
    """GRPO asks about the policy that it trains: what the judgement tries out must stay in its own copy."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**SIZE, **KINDS["llama"]})).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        before = model(ids).logits
        assert why_unsupported(model.config) is None
        assert torch.equal(model(ids).logits, before)


def test_the_recording_of_calls_is_no_attention_for_any_other_model():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**SIZE, **KINDS["llama"]}))
    assert why_unsupported(model.config) is None
    model.set_attn_implementation(RECORDED_ATTENTION)
    with pytest.raises(RuntimeError, match="only records calls"):
        model(torch.arange(12)[None])


@pytest.mark.parametrize("kind", KINDS)
def test_the_architectures_of_the_tests_are_supported(kind):
    check_supported(AutoConfig.for_model(kind, **{**SIZE, **KINDS[kind]}))


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("mixtral", {}, "experts"),
        ("qwen3_moe", {}, "experts"),
        ("gpt_oss", {}, "experts"),
        ("gpt2", {}, "not built like Llama's"),
        ("gpt_neox", {}, "not built like Llama's"),
        ("bloom", {}, "attention"),
        ("stablelm", {"num_hidden_layers": 2}, "attention cannot be replaced"),
        ("minicpm3", {}, "keys and values differ in size"),
        ("nemotron", {"num_key_value_heads": 2}, "do not pass the positions"),
        ("diffllama", {}, "not every layer calls attention exactly once"),
        ("nemotron", {}, r"transformers cannot build a model from its configuration \(TypeError: unsupported"),
        ("aria_text", {}, "reads values"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
    ],
)
def test_what_cannot_be_decoded_is_told_in_one_line(kind, options, reason):
    with pytest.raises(UserError, match=reason) as error:
        check_supported(AutoConfig.for_model(kind, **options))
    assert "\n" not in str(error.value)
    assert kind in str(error.value)


def test_a_model_of_many_layers_is_judged_without_its_weights():
    config = AutoConfig.for_model("qwen3", hidden_size=8192, num_hidden_layers=80, num_attention_heads=64)
    check_supported(config)
