"""flash-attn-4 as an operation: its plumbing on a CPU, with kernels of plain arithmetic, and the kernels on a GPU."""

import functools
import math

import pytest
import torch
from plain_kernels import PlainKernels
from tiny_models import documents, gradients, make
from torch.utils.checkpoint import checkpoint
from transformers import DeepseekV3Config, GPTNeoXConfig, LlamaConfig, MambaConfig, Qwen3_5TextConfig, Qwen3Config

from open_r1.configs import TrainConfig
from open_r1.modeling import flash
from open_r1.modeling.architectures import skeleton
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION, VARLEN_ATTENTION, packed_attention
from open_r1.modeling.layout import DocumentLayout
from open_r1.training.activations import activation_callbacks
from open_r1.training.packing import build_pack

LENGTHS, PARENTS = [9, 1, 14, 3, 9, 2], [None, None, None, 0, 0, 0]


def plain(q, k, v, layout, scale, window=None, softcap=None, sinks=None):
    """One document at a time, one query at a time, in the dtype of the inputs."""
    rows = [None] * len(q)
    repeats = q.shape[1] // k.shape[1]
    for i in range(len(layout.lengths)):
        parent = layout.parents[i]
        seen = [layout.tokens_of(j) for j in (parent, i) if j is not None]
        keys = torch.cat(seen).to(q.device)
        ks, vs = (x[keys].repeat_interleave(repeats, 1) for x in (k, v))
        for at, token in enumerate(layout.tokens_of(i).tolist()):
            last = layout.prefixes[i] + at + 1
            first = 0 if window is None else max(0, last - window)
            scores = torch.einsum("hd,khd->hk", q[token], ks[first:last]) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat([sinks[:, None], scores], 1)
            shares = scores.softmax(-1)[:, -(last - first) :]
            rows[token] = torch.einsum("hk,khd->hd", shares, vs[first:last])
    return torch.stack(rows)


def draw(
    device="cpu", dtype=torch.float32, lengths=LENGTHS, parents=PARENTS, heads=4, kv_heads=2, size=8, value_size=8
):
    torch.manual_seed(0)
    layout = DocumentLayout(lengths, device, parents)
    shapes = [(heads, size), (kv_heads, size), (kv_heads, value_size)]
    tensors = [torch.randn(sum(lengths), *shape, device=device, dtype=dtype, requires_grad=True) for shape in shapes]
    sinks = torch.randn(heads, device=device, requires_grad=True)
    return layout, tensors, sinks, torch.randn(sum(lengths), heads, value_size, device=device, dtype=dtype)


def packed(layout, tensors, **options):
    q, k, v = (x.transpose(0, 1)[None] for x in tensors)
    return packed_attention(torch.nn.Identity(), q, k, v, None, layout=layout, allow_flash=True, **options)[0][0]


@pytest.fixture
def on_cpu(monkeypatch):
    stand_in = PlainKernels()
    monkeypatch.setattr(flash, "kernels", lambda: stand_in)
    monkeypatch.setattr(flash, "is_used", lambda *args: True)
    return stand_in


CASES = {
    "causal": {},
    "window": {"window": 4},
    "wide_window": {"window": 400},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": True},
    "all": {"window": 5, "softcap": 2.0, "sinks": True},
}


def both(case, layout, tensors, sinks, grad, exact=None, scale=0.3):
    """Output and gradients of the operation, and by formula in float32."""
    options = dict(CASES[case])
    sinks = sinks if options.pop("sinks", False) else None
    inputs = [*tensors, *([] if sinks is None else [sinks])]
    ours = packed(
        layout,
        tensors,
        scaling=scale,
        sliding_window=options.get("window"),
        softcap=options.get("softcap"),
        s_aux=sinks,
    )
    found = [ours.detach(), *torch.autograd.grad(ours, inputs, grad)]
    copies = [x.detach().float().requires_grad_() for x in inputs]
    theirs = plain(*copies[:3], layout, scale, **options, sinks=None if sinks is None else copies[3])
    return found, [theirs.detach(), *torch.autograd.grad(theirs, copies, grad.float())]


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_equal_the_formula(on_cpu, case):
    found, expected = both(case, *draw())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert on_cpu.calls == 1


def test_the_operation_is_registered_as_pytorch_wants_it(on_cpu):
    layout, (q, k, v), sinks, _ = draw(parents=[None] * 6)
    numbers = (layout.max_q, layout.max_k, 1 / math.sqrt(8), 4, 1.0)
    arguments = (q, k, v, layout.cu_seqlens_q, layout.cu_seqlens_k, sinks, *numbers)
    torch.library.opcheck(flash._forward, arguments)


def test_a_compiled_function_holds_attention_without_a_break(on_cpu):
    layout, tensors, _, grad = draw()
    expected = torch.autograd.grad(packed(layout, tensors), tensors, grad)
    compiled = torch.compile(lambda *x: packed(layout, x) * 2, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*tensors), tensors, grad)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs)


def test_a_compiled_layer_asks_without_a_break_whether_it_is_used(monkeypatch):
    """Sizes of tensors are symbols there."""
    monkeypatch.setattr(flash, "_largest_head", torch.compiler.assume_constant_result(lambda: 256))

    @functools.partial(torch.compile, dynamic=True, fullgraph=True, backend="eager")
    def used(q):
        return q + flash.is_used((q.shape[-1], q.shape[-1]), "cuda", torch.bfloat16)

    assert [int(used(torch.zeros(3, size))[0, 0]) for size in (64, 80)] == [1, 0]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_checkpointed_layer_computes_its_attention_once(on_cpu, compiled):
    layout, tensors, _, grad = draw()

    def layer(*x):
        return packed(layout, [y.sin() for y in x]).cos()

    function = torch.compile(layer, backend="aot_eager") if compiled else layer
    expected = torch.autograd.grad(layer(*tensors), tensors, grad)
    on_cpu.calls = 0
    outs = [checkpoint(function, *tensors, use_reentrant=False, context_fn=flash.keep_attention) for _ in range(3)]
    for out in reversed(outs):
        found = torch.autograd.grad(out, tensors, grad)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert on_cpu.calls == 3


@pytest.mark.parametrize(("name", "calls"), [(ATTENTION, 2), (VARLEN_ATTENTION, 0)])
def test_a_policy_computes_the_attention_of_its_checkpointed_layers_once(on_cpu, name, calls):
    """As on a GPU with flash-attn-4, where it is the default."""
    model, pack = make("llama").train(), build_pack(documents(LENGTHS), "cpu")
    model.set_attn_implementation(SDPA_ATTENTION)
    model(pack=pack).logprobs.sin().sum().backward()
    expected = gradients(model)
    model.zero_grad()
    model.set_attn_implementation(name)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for callback in activation_callbacks(model, TrainConfig(use_cpu=True, report_to=[])):
        callback.on_train_begin(None, None, None, model=model)
    model(pack=pack).logprobs.sin().sum().backward()
    assert on_cpu.calls == calls
    for found, gradient in zip(gradients(model).values(), expected.values(), strict=True):
        torch.testing.assert_close(found, gradient)


BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("largest", "sizes", "device", "dtype", "option", "used"),
    [
        (256, (128, 128), "cuda", BF16, None, True),
        (256, (128, 128), "cuda", BF16, "flash_attention_4", True),
        (256, (128, 128), "cuda", BF16, "varlen", False),
        (256, (128, 128), "cuda", BF16, "sdpa", False),
        (256, (128, 128), "cuda", FP32, None, False),
        (256, (128, 128), "cpu", BF16, None, False),
        (256, (256, 256), "cuda", torch.float16, None, True),
        (128, (256, 256), "cuda", BF16, None, False),  # Blackwell
        (256, (80, 80), "cuda", BF16, None, False),
        (256, (80, 80), "cuda", BF16, "flash_attention_4", False),
        (256, (192, 128), "cuda", BF16, None, False),  # multi-head latent attention
        (0, (128, 128), "cuda", BF16, None, False),  # not installed
        (None, (128, 128), "cuda", BF16, None, False),  # a machine without GPUs
        (None, (128, 128), "cuda", BF16, "flash_attention_4", True),  # which plans for one with GPUs
        (None, (80, 80), "cuda", BF16, "flash_attention_4", False),
    ],
)
def test_where_flash_attention_is_used(monkeypatch, largest, sizes, device, dtype, option, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: largest is not None)
    monkeypatch.setattr(flash, "_largest_head", lambda: largest or 0)
    assert flash.is_used(sizes, device, dtype, option) == used


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (LlamaConfig(hidden_size=32, num_attention_heads=4), {(8, 8)}),
        (Qwen3Config(hidden_size=32, num_attention_heads=4, head_dim=16), {(16, 16)}),
        (GPTNeoXConfig(hidden_size=32, num_attention_heads=4), {(8, 8)}),
        (
            DeepseekV3Config(num_hidden_layers=1, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
            {(192, 128)},
        ),
        (Qwen3_5TextConfig(num_hidden_layers=4, head_dim=256), {(256, 256)}),  # and delta nets
        (MambaConfig(hidden_size=32, num_hidden_layers=1), set()),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_head_sizes_are_those_of_attention_layers(config, sizes):
    assert flash.head_sizes(skeleton(config)) == sizes


GPU_CASES = [
    {"size": 128, "value_size": 128, "heads": 12, "kv_heads": 2},
    {"size": 64, "value_size": 64, "heads": 9, "kv_heads": 3},
    {"size": 256, "value_size": 256, "heads": 4, "kv_heads": 2},
    {"size": 32, "value_size": 32, "heads": 4, "kv_heads": 4},
    {"size": 96, "value_size": 96, "heads": 4, "kv_heads": 4},
]


def test_every_head_size_that_is_taken_is_compared_on_a_gpu():
    assert {case["size"] for case in GPU_CASES} == set(flash.HEAD_SIZES)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("heads", GPU_CASES, ids=lambda heads: str(heads["size"]))
def test_kernels_equal_the_formula_in_float32(case, heads):
    """Within what bfloat16 rounds away: 1% of the norm of each, 2% where scores are squashed (fast tanh)."""
    if flash.kernels() is None:
        pytest.skip("flash-attn-4 is not installed")
    drawn = draw("cuda", torch.bfloat16, [130, 1, 70, 33, 200], [None, None, None, 0, 0], **heads)
    assert flash.fits(drawn[1][0], drawn[1][2])
    found, expected = both(case, *drawn, scale=heads["size"] ** -0.5)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.float() - theirs).norm() <= 0.02 * theirs.norm()


@pytest.mark.gpu
def test_a_deterministic_backward_repeats_itself():
    if flash.kernels() is None:
        pytest.skip("flash-attn-4 is not installed")
    layout, tensors, _, grad = draw("cuda", torch.bfloat16, [700, 900], [None, 0], **GPU_CASES[0])
    torch.use_deterministic_algorithms(True)
    try:
        runs = [torch.autograd.grad(packed(layout, tensors), tensors, grad) for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(x, y) for run in runs[1:] for x, y in zip(run, runs[0], strict=True))
