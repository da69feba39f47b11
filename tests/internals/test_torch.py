"""What the code needs of PyTorch beyond its public names."""

import torch

from open_r1.internals.torch import traced_once


def test_equal_sizes_are_told_apart_while_it_lasts():
    from torch.fx.experimental import _config

    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    with traced_once():
        assert _config.use_duck_shape is False
        double = torch.compile(lambda x: x * x.shape[0], backend=backend, dynamic=True)
        double(torch.ones(4, 4))
        double(torch.ones(5, 4))
    assert len(compiled) == 1
    assert _config.use_duck_shape is True


def test_a_function_with_a_float_is_traced_once_while_it_lasts():
    import torch._dynamo.utils as dynamo

    class Scaled(torch.nn.Module):
        eps = 1e-6

        def forward(self, x):
            return torch.ops.aten.native_layer_norm(x, [x.shape[1]], None, None, self.eps)[0]

    dynamo.compilation_time_metrics.clear()
    with traced_once():
        torch.compile(Scaled(), backend="aot_eager", dynamic=True)(torch.ones(3, 4))
    assert len(dynamo.compilation_time_metrics["bytecode_tracing"]) == 1
