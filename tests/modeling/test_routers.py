"""Loads and entropies of routers against their definition."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import SIZE, documents, make
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from open_r1.modeling.routers import ChosenExperts, RouterStatistics, expert_fingerprints


def test_figures_are_those_of_the_router_logits():
    torch.manual_seed(0)
    sizes = {"head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZE, **sizes)).train()
    statistics = RouterStatistics(model)
    ids = documents([30])[0].input_ids[None]
    logits = model(input_ids=ids, output_router_logits=True).router_logits
    entropies, loads = [], []
    for layer in logits:
        chosen = layer.topk(2).indices.flatten()
        loads.append(torch.bincount(chosen, minlength=4).max().item() / len(chosen) * 4)
        entropies.append(torch.distributions.Categorical(logits=layer).entropy().mean().item())
    figures = statistics.figures()
    assert figures["router/max_load"] == pytest.approx(sum(loads) / 2, rel=1e-5)
    assert figures["router/entropy"] == pytest.approx(sum(entropies) / 2, rel=1e-4)
    assert statistics.figures() == {}


def test_a_dense_model_has_no_figures():
    model = make("llama")
    statistics = RouterStatistics(model)
    model(input_ids=documents([9])[0].input_ids[None])
    assert statistics.figures() == {}


KINDS = {
    "qwen3_moe": {"num_experts": 6},
    "mixtral": {"num_local_experts": 6},
    "deepseek_v3": {
        **{"n_routed_experts": 6, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    },
    "gpt_oss": {"num_local_experts": 6},
}


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_are_equal_where_all_layers_chose_the_same_experts(kind):
    torch.manual_seed(0)
    sizes = {"head_dim": 8, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZE, **sizes, **KINDS[kind]}))
    chosen = ChosenExperts(model)
    assert chosen
    choices = []
    for module in chosen.modules.values():
        module.register_forward_pre_hook(lambda _, args: choices.append(args[1].sort(-1).values))
    model(input_ids=documents([60])[0].input_ids[None])
    rows = torch.cat(choices, dim=-1).tolist()
    numbers = chosen.fingerprints().tolist()
    assert len(choices) == len(chosen.modules) and len(set(numbers)) > 10
    for i, row in enumerate(rows):
        assert [n == numbers[i] for n in numbers] == [other == row for other in rows]


def test_the_order_of_experts_does_not_matter_and_their_layer_does():
    model = make("llama")
    chosen = ChosenExperts(model)
    assert not chosen
    first, second = [[1, 2], [2, 1], [1, 3], [5, 6]], [[5, 6], [6, 5], [5, 6], [1, 2]]
    chosen.modules = {i: SimpleNamespace(chosen_experts=torch.tensor(ids)) for i, ids in enumerate((first, second))}
    a, b, c, d = chosen.fingerprints().tolist()
    assert a == b and len({a, c, d}) == 3


def test_an_engine_that_reports_zeros_for_layers_without_experts_gets_the_same_fingerprints():
    """As vLLM: an array of all layers (`CompletionOutput.routed_experts`)."""
    torch.manual_seed(0)
    sizes = {"head_dim": 8, "moe_intermediate_size": 16, "num_experts_per_tok": 2, "num_experts": 4}
    config = Qwen3MoeConfig(**SIZE | {"num_hidden_layers": 4}, **sizes, mlp_only_layers=[0, 2])
    model = Qwen3MoeForCausalLM(config)
    chosen = ChosenExperts(model)
    model(input_ids=documents([30])[0].input_ids[None])
    reported = torch.zeros(4, 30, 2, dtype=torch.long)
    for layer in (1, 3):
        reported[layer] = model.model.layers[layer].mlp.experts.chosen_experts
    assert torch.equal(expert_fingerprints(dict(enumerate(reported))), chosen.fingerprints())
    assert len(set(chosen.fingerprints().tolist())) > 5
