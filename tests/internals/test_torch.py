"""What the code needs of PyTorch beyond its public names."""

import torch

from open_r1.internals.torch import separate_symbols


def test_equal_sizes_are_told_apart_while_it_lasts():
    from torch.fx.experimental import _config

    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    with separate_symbols():
        assert _config.use_duck_shape is False
        double = torch.compile(lambda x: x * x.shape[0], backend=backend, dynamic=True)
        double(torch.ones(4, 4))
        double(torch.ones(5, 4))
    assert len(compiled) == 1
    assert _config.use_duck_shape is True
