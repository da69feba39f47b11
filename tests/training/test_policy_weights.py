"""Engines get the policy's weights under the names that its checkpoint has."""

import copy
from types import SimpleNamespace

import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import SIZE, documents, make, plain_logprobs
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from open_r1.configs import ModelConfig
from open_r1.engine.transformers_engine import ReplicaEngine
from open_r1.errors import UserError
from open_r1.training import model as model_module
from open_r1.training import policy_weights
from open_r1.training.model import add_adapters, empty_replica
from open_r1.training.packing import build_pack
from open_r1.training.policy_weights import PolicyWeights, whole_state_dict

MODELS = {
    "qwen3_moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**SIZE, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
    ),
    "deepseek_v3": (
        DeepseekV3ForCausalLM,
        DeepseekV3Config(
            **{**SIZE, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "v_head_dim": 8},
            **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "moe_intermediate_size": 16, "n_routed_experts": 4},
            **{"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        ),
    ),
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SIZE, num_local_experts=4)),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
def test_experts_are_sent_as_they_are_saved(tmp_path, kind, loaded):
    model_class, config = MODELS[kind]
    model = model_class(config)
    model.save_pretrained(tmp_path)
    if loaded:
        model = model_class.from_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    sent = dict(PolicyWeights(model))
    assert sent.keys() == {name for name in saved if "e_score_correction_bias" not in name}  # never trained
    assert any(".experts.3." in name for name in sent)
    for name, tensor in sent.items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0)


def test_lora_on_a_mixture_of_experts_is_sent_merged_under_the_same_names(tmp_path):
    peft = pytest.importorskip("peft")
    model_class, config = MODELS["qwen3_moe"]
    model_class(config).save_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path)
    lora = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    sent = {name: tensor.detach() for name, tensor in PolicyWeights(lora)}
    saved = load_file(tmp_path / "model.safetensors")
    assert sent.keys() == saved.keys()
    changed = {name for name in sent if not torch.equal(sent[name], saved[name])}
    assert changed == {name for name in sent if "q_proj" in name}


def test_a_copy_of_the_model_takes_its_parameters():
    model_class, config = MODELS["qwen3_moe"]
    policy, copy = model_class(config), model_class(config)
    engine = ReplicaEngine(copy, tokenizer=None)
    engine.update_weights(PolicyWeights(policy, engine), 3)
    for one, two in zip(policy.parameters(), copy.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_are_joined_when_saved_are_refused_not_sent_in_parts(monkeypatch):
    def joined(model, tensors):
        return {"qkv": torch.cat([t.flatten() for t in tensors.values()])}

    monkeypatch.setattr(policy_weights, "revert_weight_conversion", joined)
    model_class, config = MODELS["mixtral"]
    with pytest.raises(UserError, match="MixtralForCausalLM merges several weights"):
        list(PolicyWeights(model_class(config)))


def test_a_copy_of_a_model_with_sinks_can_be_made(tmp_path):
    """transformers' sdpa refuses gpt-oss."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    config = AutoConfig.for_model("gpt_oss", vocab_size=97, num_key_value_heads=2, num_local_experts=4, **sizes)
    config.save_pretrained(tmp_path)
    args = SimpleNamespace(bf16=False, device=torch.device("cpu"))
    copy = empty_replica(ModelConfig(str(tmp_path)), args)
    assert copy(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 97)


@pytest.mark.parametrize("names", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
@pytest.mark.parametrize("kind", ["llama", "llama_tied"])
def test_a_head_that_lora_trains_in_full_is_sent_and_saved(tmp_path, kind, names):
    """Where it is the embedding too, both stay one."""
    model, sequences = make(kind), documents([9, 12, 5])
    plain = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), attn_implementation="sdpa")
    plain.load_state_dict(model.state_dict())
    options = ModelConfig(model_name_or_path="none", use_peft=True, lora_modules_to_save=names)
    lora = add_adapters(model, options, seed=0)
    assert options.lora_modules_to_save == names
    for parameter in lora.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.2)
    expected = lora.eval()(pack=build_pack(sequences)).logprobs
    lora.save_pretrained(tmp_path, state_dict=whole_state_dict(lora, None, True))
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path).merge_and_unload().eval()
    torch.testing.assert_close(torch.cat(plain_logprobs(loaded, sequences)), expected)
    with torch.no_grad():
        plain.load_state_dict({name: tensor.clone() for name, tensor in PolicyWeights(lora)}, strict=False)
    torch.testing.assert_close(torch.cat(plain_logprobs(plain.eval(), sequences)), expected)


def test_adapters_on_a_head_that_is_the_embedding_are_refused():
    for name in ("lm_head", "embed_tokens", "model.embed_tokens"):
        options = ModelConfig(model_name_or_path="none", use_peft=True, lora_target_modules=["q_proj", name])
        with pytest.raises(UserError, match="is this model's head and embedding at once"):
            add_adapters(make("llama_tied"), options, seed=0)
        if name != "lm_head":
            continue
        add_adapters(make("llama"), options, seed=0)


def test_a_head_that_is_the_embedding_is_not_trained_in_full_where_weights_are_sharded(monkeypatch):
    monkeypatch.setattr(model_module, "_sharded_at_load", lambda: True)
    options = ModelConfig(model_name_or_path="none", use_peft=True, lora_modules_to_save=["lm_head"])
    with pytest.raises(UserError, match=r"lora_modules_to_save is .* which FSDP and ZeRO-3 cannot train in full"):
        add_adapters(make("llama_tied"), options, seed=0)
    add_adapters(make("llama"), options, seed=0)


@pytest.mark.parametrize("option", ["lora_target_modules", "lora_modules_to_save"])
@pytest.mark.parametrize("names", [["nonsense"], ["up_proj", "nonsense"], ["_proj"]])
def test_layers_that_the_model_does_not_have_are_named(option, names):
    options = ModelConfig(model_name_or_path="none", use_peft=True, **{option: names})
    with pytest.raises(UserError, match=rf"{option} is .* but the model has no layer {names[-1]}: it has down_proj, "):
        add_adapters(make("llama"), options, seed=0)
