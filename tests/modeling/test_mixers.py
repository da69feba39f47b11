"""Which linear layers get no adapters."""

import pytest
from transformers import AutoConfig

from open_r1.modeling.architectures import skeleton
from open_r1.modeling.mixers import unadaptable


@pytest.mark.parametrize(
    ("kind", "names"),
    [("llama", None), ("qwen3_5_text", None), ("llama4_text", ["router"]), ("falcon_h1", ["out_proj"])],
)
def test_routers_and_projections_that_kernels_read_get_no_adapters(kind, names):
    assert unadaptable(skeleton(AutoConfig.for_model(kind, num_hidden_layers=2, hidden_size=64))) == names
