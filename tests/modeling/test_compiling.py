"""Compiled layers share their code."""

import pytest
import torch
from tiny_models import documents, make
from torch._dynamo.utils import counters

from open_r1.training.packing import build_pack


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_layers_of_a_kind_are_compiled_once(kind):
    graphs = []
    for count in (2, 6):
        model = make(kind, num_hidden_layers=count)
        torch.compiler.reset()
        counters.clear()
        for layer in model.get_decoder().layers:
            layer.compile(dynamic=True, backend="eager")
        model(pack=build_pack(documents([9, 5]))).logprobs.sum().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[1]
