"""Loads and entropies of routers against their definition."""

import pytest
import torch
from tiny_models import SIZE, documents, make
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from open_r1.modeling.routers import RouterStatistics


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
