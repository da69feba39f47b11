"""Attention over packs by PyTorch's `varlen_attn`: its calls on a CPU, with a stand-in, and the kernel on a GPU."""

import pytest
import torch

from open_r1.modeling import attention
from open_r1.modeling.attention import packed_attention
from open_r1.modeling.layout import DocumentLayout

LENGTHS, PARENTS = [9, 1, 14, 3, 9], [None, None, None, 0, 0]
SIZES = [(16, 16), (24, 16), (16, 24), (20, 20), (12, 20)]
"""Of queries and of values: latent attention (DeepSeek-V2, arXiv 2405.04434) has more of the first."""


def draw(sizes, device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(4, sizes[0]), (2, sizes[0]), (2, sizes[1])]
    tensors = [torch.randn(1, h, sum(LENGTHS), d, device=device, dtype=dtype, requires_grad=True) for h, d in shapes]
    return DocumentLayout(LENGTHS, device, PARENTS), tensors


def outputs(layout, tensors, scaling=None, **options):
    out, _ = packed_attention(torch.nn.Identity(), *tensors, None, layout=layout, scaling=scaling, **options)
    torch.manual_seed(1)
    return [out.detach(), *torch.autograd.grad(out, tensors, torch.randn_like(out))]


def kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa=False):
    """Stands for `varlen_attn`, with its demands."""
    assert q.shape[-1] == k.shape[-1] == v.shape[-1] and q.shape[-1] % 8 == 0
    assert q.is_contiguous() and k.is_contiguous() and v.is_contiguous()  # else its gradients on CUDA are permuted
    assert enable_gqa == (q.shape[1] != k.shape[1]) or not attention.TAKES_GQA
    parts = []
    for i in range(len(cu_q) - 1):
        query = q[cu_q[i] : cu_q[i + 1]]
        key, value = (x[cu_k[i] : cu_k[i + 1]].repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", query, key) * (q.shape[-1] ** -0.5 if scale is None else scale)
        seen = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value))
    return torch.cat(parts)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_heads_of_any_size_go_through_a_kernel_that_wants_one_multiple_of_8(monkeypatch, sizes, scaling):
    layout, tensors = draw(sizes)
    expected = outputs(layout, tensors, scaling, allow_varlen=False)
    monkeypatch.setattr(attention, "use_varlen", lambda q, v: True)
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    for found, other in zip(outputs(layout, tensors, scaling), expected, strict=True):
        torch.testing.assert_close(found, other)


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [*SIZES, (64, 64), (192, 128)], ids=str)
def test_the_kernel_takes_heads_of_any_size(sizes):
    """Within what bfloat16 rounds away: 2% of the norm of each."""
    layout, tensors = draw(sizes, "cuda", torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in tensors]
    for found, expected in zip(outputs(layout, tensors), outputs(layout, exact, allow_varlen=False), strict=True):
        assert (found.float() - expected).norm() <= 0.02 * expected.norm()
