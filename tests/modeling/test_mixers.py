"""Which linear layers get no adapters, and which functions delta nets call."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from tiny_models import documents, gradients, make
from toys import make_tokenizer
from transformers import AutoConfig, AutoTokenizer
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.modeling.architectures import skeleton
from open_r1.modeling.mixers import mixers, unadaptable
from open_r1.training.packing import build_pack

KERNELS = {
    "torch_chunk_gated_delta_rule": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule"),
    "torch_recurrent_gated_delta_rule": ("fla.ops.gated_delta_rule", "fused_recurrent_gated_delta_rule"),
    "causal_conv1d_fn": ("causal_conv1d", "causal_conv1d_fn"),
    "causal_conv1d_update": ("causal_conv1d", "causal_conv1d_update"),
}
"""Functions of a modeling module, and the kernels that transformers prefers."""


@pytest.mark.parametrize(
    ("kind", "names"),
    [("llama", None), ("qwen3_5_text", None), ("llama4_text", ["router"]), ("falcon_h1", ["out_proj"])],
)
def test_routers_and_projections_that_kernels_read_get_no_adapters(kind, names):
    assert unadaptable(skeleton(AutoConfig.for_model(kind, num_hidden_layers=2, hidden_size=64))) == names


@pytest.fixture
def install(monkeypatch):
    """`install(model)`: what transformers does to the model's code if fla-core and causal-conv1d are installed before
    it is imported. Every kernel raises, as it does on a CPU."""

    def kernel(*args, **kwargs):
        raise RuntimeError("0 active drivers")

    for path in ("fla", "fla.ops", "fla.ops.gated_delta_rule", "causal_conv1d"):
        monkeypatch.setitem(sys.modules, path, ModuleType(path))
    for path, name in KERNELS.values():
        setattr(sys.modules[path], name, kernel)

    def install(model):
        net = next(m for m in mixers(model) if "GatedDeltaNet" in type(m).__name__)
        modeling = sys.modules[type(net).__module__]
        for function, (path, name) in KERNELS.items():
            plain = inspect.unwrap(getattr(modeling, function))
            decorated = use_kernel_func_from_hub_with_fallback(name, path.partition(".")[0])(plain)
            monkeypatch.setattr(modeling, function, decorated)
            with pytest.raises(RuntimeError, match="0 active drivers"):
                decorated()

    return install


@pytest.mark.parametrize(
    ("kind", "sizes"), [("qwen3_5", {}), ("qwen3_5_moe", {}), ("qwen3_next", {}), ("qwen3_next", {"num_experts": 0})]
)
def test_delta_nets_call_no_kernels_that_happen_to_be_installed(kind, sizes, install, tmp_path):
    sequences, request = documents([9, 1, 30]), Request(0, [5, 6, 7], Sampling(seed=0, max_tokens=4))
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path))

    def trained():
        model = make(kind, **sizes)
        logprobs = model(pack=build_pack(sequences)).logprobs
        logprobs.sum().backward()
        return logprobs.detach(), gradients(model)

    expected, slopes = trained()
    model = make(kind, **sizes).eval()
    sampled = TransformersEngine(model, tokenizer).generate([request])

    install(model)
    assert TransformersEngine(model, tokenizer).generate([request]) == sampled
    install(model)
    found, other_slopes = trained()
    torch.testing.assert_close(found, expected)
    for name, slope in slopes.items():
        torch.testing.assert_close(other_slopes[name], slope)
