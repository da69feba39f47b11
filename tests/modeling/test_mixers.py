"""Which linear layers get no adapters, and which functions mixers call."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from tiny_models import MIXERS, documents, gradients, make
from toys import make_tokenizer
from transformers import AutoConfig, AutoTokenizer
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.modeling.architectures import skeleton
from open_r1.modeling.mixers import mixers, unadaptable
from open_r1.training.packing import build_pack

SCANS, STATES = "mamba_ssm.ops.selective_scan_interface", "mamba_ssm.ops.triton.selective_state_update"
KERNELS = {
    "torch_chunk_gated_delta_rule": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule"),
    "torch_recurrent_gated_delta_rule": ("fla.ops.gated_delta_rule", "fused_recurrent_gated_delta_rule"),
    "causal_conv1d_fn": ("causal_conv1d", "causal_conv1d_fn"),
    "causal_conv1d_update": ("causal_conv1d", "causal_conv1d_update"),
    "mamba_inner_fn": (SCANS, "mamba_inner_fn"),
    "mamba_selective_scan": (SCANS, "selective_scan_fn"),
    "mamba_selective_state_update": (STATES, "selective_state_update"),
    "mamba2_selective_state_update": (STATES, "selective_state_update"),
    "mamba2_chunk_scan": ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"),
    "mamba2_split_conv1d_scan_combined": ("mamba_ssm.ops.triton.ssd_combined", "mamba_split_conv1d_scan_combined"),
}
"""Functions of modeling modules, and the kernels that transformers prefers."""


def parents(path):
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    return [path[:i] for i, letter in enumerate(path) if letter == "."] + [path]


@pytest.mark.parametrize(
    ("kind", "names"),
    [("llama", None), ("qwen3_5_text", None), ("llama4_text", ["router"]), ("falcon_h1", ["out_proj"])],
)
def test_routers_and_projections_that_kernels_read_get_no_adapters(kind, names):
    assert unadaptable(skeleton(AutoConfig.for_model(kind, num_hidden_layers=2, hidden_size=64))) == names


@pytest.fixture
def install(monkeypatch):
    """`install(model)`: what transformers does to the model's code if fla-core, causal-conv1d and mamba-ssm are
    installed before it is imported. Every kernel raises, as it does on a CPU."""

    def kernel(*args, **kwargs):
        raise RuntimeError("0 active drivers")

    for path, name in KERNELS.values():
        for parent in parents(path):
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        setattr(sys.modules[path], name, kernel)

    def install(model):
        modeling = sys.modules[type(mixers(model)[0]).__module__]
        found = {function: KERNELS[function] for function in KERNELS if hasattr(modeling, function)}
        assert found
        for function, (path, name) in found.items():
            plain = inspect.unwrap(getattr(modeling, function))
            decorated = use_kernel_func_from_hub_with_fallback(name, path.partition(".")[0])(plain)
            monkeypatch.setattr(modeling, function, decorated)
            with pytest.raises(RuntimeError, match="0 active drivers"):
                decorated()

    return install


@pytest.mark.parametrize(("kind", "sizes"), [*((kind, {}) for kind in MIXERS), ("qwen3_next", {"num_experts": 0})])
def test_mixers_call_no_kernels_that_happen_to_be_installed(kind, sizes, install, tmp_path):
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
