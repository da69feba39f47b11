"""Merged linear layers compute what they computed apart, and follow an update of their weights."""

import pytest
import torch
from native_models import KINDS, copy_of, make_model
from torch import nn

from open_r1.engine.native.merging import MergedLinear, merge_linears
from open_r1.engine.native.model import NativeModel

IDS = torch.tensor([[5, 17, 60, 3, 88, 41]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_computes_what_it_was_made_of(kind):
    model = make_model(kind)
    expected = model(IDS).logits
    merge_linears(model.model.layers)
    torch.testing.assert_close(model(IDS).logits, expected)


def test_three_and_two_products_become_two():
    model = make_model("qwen2")
    merge_linears(model.model.layers)
    layer = model.model.layers[0]
    left = [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    merged = [module for module in layer.modules() if isinstance(module, MergedLinear)]
    assert left == ["self_attn.o_proj", "mlp.down_proj"]
    assert [m.sizes for m in merged] == [[32, 16, 16], [48, 48]]
    calls = []
    for module in merged:
        forward = module.output
        module.output = lambda index, x, forward=forward: (calls.append(index), forward(index, x))[1]
    model(IDS)
    assert calls == [0, 1, 2, 0, 1]
    assert all(module._input is None for module in merged)


def test_layers_that_differ_stay_apart():
    model = make_model("llama")
    attention = model.model.layers[0].self_attn
    attention.k_proj = attention.k_proj.to(torch.bfloat16)
    merge_linears(model.model.layers[:1])
    assert isinstance(attention.q_proj, nn.Linear)


def test_an_update_reaches_merged_weights_in_place():
    policy = make_model("qwen2", seed=1)
    model = NativeModel(copy_of(make_model("qwen2")))
    model.merge_linears()
    merged = model.layers[0].self_attn.q_proj.merged
    addresses = merged.weight.data_ptr(), merged.bias.data_ptr()
    model.load(policy.named_parameters())
    own = policy.model.layers[0].self_attn
    torch.testing.assert_close(merged.weight, torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]))
    torch.testing.assert_close(merged.bias, torch.cat([own.q_proj.bias, own.k_proj.bias, own.v_proj.bias]))
    assert (merged.weight.data_ptr(), merged.bias.data_ptr()) == addresses


def test_a_model_that_shares_the_policys_weights_is_not_merged():
    policy = make_model("qwen2").to(torch.bfloat16)
    model = NativeModel(copy_of(policy))
    model.share(policy)
    model.merge_linears()
    assert model.layers[0].self_attn.q_proj.weight is policy.model.layers[0].self_attn.q_proj.weight
