"""Gated delta nets over whole packs: what the kernels are given, and on a GPU, what they compute."""

import inspect
import itertools
import sys
from types import ModuleType

import pytest
import torch
from tiny_models import documents, gradients, make

from open_r1.errors import UserError
from open_r1.modeling import fla
from open_r1.modeling.mixers import mixers
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import build_pack

LENGTHS = [9, 1, 30, 2, 17]


def computed(model, sequences, device="cpu", autocast=False):
    model.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        logprobs = model(pack=build_pack(sequences, device)).logprobs
    logprobs.sin().sum().backward()
    return logprobs.detach(), gradients(model)


@pytest.fixture
def plain(monkeypatch):
    """transformers' convolution and rule by PyTorch alone, in place: with fla-core installed, it prefers kernels."""
    from transformers.models.qwen3_5 import modeling_qwen3_5 as modeling

    functions = [inspect.unwrap(getattr(modeling, name)) for name in (fla.CONVOLUTION, fla.RULE)]
    for function in functions:
        monkeypatch.setattr(modeling, function.__name__, function)
    return functions


@pytest.fixture
def stand_in(monkeypatch, plain):
    """A package `fla` whose functions compute slices of packs by transformers' own, and tell the boundaries."""
    plain_convolution, plain_rule = plain
    told = []

    def slices(cu_seqlens):
        told.append(cu_seqlens.tolist())
        return [slice(a, b) for a, b in itertools.pairwise(cu_seqlens)]

    def causal_conv1d(x, weight, bias=None, activation=None, cu_seqlens=None):
        parts = [plain_convolution(x[:, s].transpose(1, 2), weight, bias, activation) for s in slices(cu_seqlens)]
        return torch.cat(parts, dim=-1).transpose(1, 2), None

    def chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel, cu_seqlens):
        parts = [
            plain_rule(*(x[:, s] for x in (q, k, v, g, beta)), use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel)[0]
            for s in slices(cu_seqlens)
        ]
        return torch.cat(parts, dim=1), None

    for name, functions in (
        ("fla", {}),
        ("fla.modules", {}),
        ("fla.modules.causal_conv1d", {"causal_conv1d": causal_conv1d}),
        ("fla.ops", {}),
        ("fla.ops.gated_delta_rule", {"chunk_gated_delta_rule": chunk_gated_delta_rule}),
    ):
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    return told


def test_kernels_are_told_where_documents_begin(stand_in):
    model, sequences = make("qwen3_5"), documents(LENGTHS)
    expected, slopes = computed(model, sequences)
    assert stand_in == []
    fla.take_packs([m for m in mixers(model) if "GatedDeltaNet" in type(m).__name__], "cpu")
    found, other_slopes = computed(model, sequences)
    assert stand_in and set(map(tuple, stand_in)) == {(0, 9, 10, 40, 42, 59)}
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for name, slope in slopes.items():
        torch.testing.assert_close(other_slopes[name], slope, rtol=1e-3, atol=1e-5)


def test_without_a_pack_the_plain_functions_are_called(stand_in):
    model = make("qwen3_5")
    ids = documents([12])[0].input_ids[None]
    expected = model(input_ids=ids).logits
    fla.take_packs([m for m in mixers(model) if "GatedDeltaNet" in type(m).__name__], "cpu")
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert stand_in == []


def test_a_model_that_is_prepared_again_without_fla_calls_its_kernels_no_more(stand_in):
    model, sequences = make("qwen3_5"), documents(LENGTHS)
    expected, _ = computed(model, sequences)
    fla.take_packs([m for m in mixers(model) if "GatedDeltaNet" in type(m).__name__], "cpu")
    del model.forward  # as `adopt_policy` does
    add_logprob_forward(model)
    found, _ = computed(model, sequences)
    assert stand_in == []
    torch.testing.assert_close(found, expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("kind", "said"), [("llama", "has no gated delta nets"), ("qwen3_5", "needs a CUDA device")])
def test_where_it_cannot_be_used_a_sentence_says_so(kind, said):
    with pytest.raises(UserError, match=f"^linear_attention is fla, .*{said}"):
        fla.use_fla(make(kind))


def relative_errors(found, exact):
    """`(logprobs, gradients)` of both: for each tensor the norm of the difference over the norm of `exact`."""
    found, exact = ({"logprobs": logprobs, **slopes} for logprobs, slopes in (found, exact))
    return {name: ((found[name] - exact[name]).norm() / exact[name].norm()).item() for name in exact}


@pytest.mark.gpu
def test_kernels_of_fla_equal_document_by_document(plain):
    pytest.importorskip("fla")
    sizes = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
    model, sequences = make("qwen3_5", **sizes).cuda(), documents([300, 70, 11, 513, 129, 64, 1])
    net = next(m for m in mixers(model) if "GatedDeltaNet" in type(m).__name__)
    torch.nn.init.constant_(net.A_log, -3.0)  # states that last for a few documents
    exact = computed(model, sequences, "cuda")
    by_document = relative_errors(computed(model, sequences, "cuda", autocast=True), exact)
    try:
        fla.use_fla(model)
    except UserError as refusal:
        pytest.skip(str(refusal))
    packed = relative_errors(computed(model, sequences, "cuda", autocast=True), exact)
    print({name: (by_document[name], packed[name]) for name in packed})
    for name, error in packed.items():
        assert error < 3 * by_document[name] + 0.005, name  # without boundaries: 5 to 10 times as much


@pytest.mark.gpu
def test_a_refusal_of_the_kernels_comes_before_training(monkeypatch):
    pytest.importorskip("fla")

    def refuses(*args, **kwargs):
        raise RuntimeError("upgrade Triton.")

    monkeypatch.setattr("fla.ops.gated_delta_rule.chunk_gated_delta_rule", refuses)
    with pytest.raises(UserError, match=r"do not run here: upgrade Triton\. Or leave"):
        fla.use_fla(make("qwen3_5"))
