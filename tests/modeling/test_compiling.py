"""Compiled layers share their code, and compiled functions support any number of rows."""

import functools

import pytest
import torch
from tiny_models import compile_uncompiled, documents, make
from torch._dynamo.utils import counters

from open_r1.modeling.compiling import compile_layers, compile_rows
from open_r1.modeling.head import LogitRule, statistics, write_gradient
from open_r1.training.packing import build_pack


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_layers_of_a_kind_are_compiled_once(monkeypatch, kind):
    compile_uncompiled(monkeypatch)
    graphs = []
    for count in (2, 6):
        model = make(kind, num_hidden_layers=count)
        torch.compiler.reset()
        counters.clear()
        compile_layers(model)
        model(pack=build_pack(documents([9, 5]))).logprobs.sum().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[1]


@pytest.mark.parametrize("first", [11, 1, 64])
def test_functions_of_rows_are_compiled_once(monkeypatch, first):
    """64 is also the number of columns."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    rule, columns = LogitRule(temperature=0.7), 64
    compiled = compile_rows(statistics), compile_rows(write_gradient)
    for rows in (first, 2, 1, 64, 7):
        product, targets = torch.randn(rows, columns), torch.randint(columns, (rows,))
        found, expected = compiled[0](product, targets, rule), statistics(product, targets, rule)
        torch.testing.assert_close(found, expected)
        gradients = torch.full((2, rows + 1, columns), 7.0)
        for write, out in zip((compiled[1], write_gradient), gradients, strict=True):
            write(out[1:], product, targets, expected[1], rule)  # rows of a larger tensor
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(gradients[0, 1:].sum(-1), torch.zeros(rows), atol=1e-5, rtol=0)
        assert (gradients[0, 0] == 7).all()
    assert counters["stats"]["unique_graphs"] == 2
