"""Attention of one token a row over paged keys and values, split over the keys so that few rows fill a GPU too.

Online softmax as in FlashAttention (arXiv 2205.14135, algorithm 1); splits are joined by their maxima and sums, as in
Flash-Decoding.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from open_r1.engine.native.kernels.launching import launch

NOTHING: Any = tl.constexpr(-1.0e30)
"""The score of a masked key."""
LOG2_E: Any = tl.constexpr(1.4426950408889634)
PROGRAMS = 528
"""Target number of programs: four for each multiprocessor of an H100 or H200."""
BLOCK, BLOCK_BYTES = 64, 2**16
"""Most keys that a program reads at once, and most bytes of them and their values: shared memory has 99 KiB or more."""
WARPS, STAGES = 4, 3
MIN_SPLIT = 256
"""Fewest keys worth a split."""


@triton.jit
def scores_of(product, scale, softcap, CAPPED: tl.constexpr):
    """Scaled and capped scores, in units of log2."""
    x = product * scale
    if CAPPED:
        x = softcap * (1 - 2 / (tl.exp(2 * x / softcap) + 1))  # tanh
    return x * LOG2_E


@triton.jit
def attend(
    Q, K, V, PAGES, TABLE, LENGTHS, SINKS, OUT, PARTS, PEAKS, SUMS,
    q_row, q_head, k_row, k_head, v_row, v_head, page_stride, half_stride, head_stride, table_row,
    scale, softcap, window,
    HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_P: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
    CAPPED: tl.constexpr, WINDOWED: tl.constexpr, WITH_SINKS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (row, key-value head, split). The first split stores the new key and value, and starts its sums
    with them and the sink."""
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    cached = tl.load(LENGTHS + row)
    g, d, j = tl.arange(0, GROUP_P), tl.arange(0, DP), tl.arange(0, BLOCK)
    head = kv_head * GROUP + g
    real = (g < GROUP)[:, None] & (d < D)[None, :]
    q = tl.load(Q + row * q_row + head[:, None] * q_head + d[None, :], mask=real, other=0.0).to(PAGES.dtype.element_ty)
    k = tl.load(K + row * k_row + kv_head * k_head + d, mask=d < D, other=0.0).to(PAGES.dtype.element_ty)
    v = tl.load(V + row * v_row + kv_head * v_head + d, mask=d < D, other=0.0).to(PAGES.dtype.element_ty)
    table = TABLE + row * table_row
    mine = PAGES + kv_head * head_stride
    first_split = split == 0
    target = mine + tl.load(table + cached // SIZE).to(tl.int64) * page_stride + (cached % SIZE) * D + d
    stored = tl.where(first_split, D, 0)
    tl.store(target, k, mask=d < stored)
    tl.store(target + half_stride, v, mask=d < stored)

    new = scores_of(tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1), scale, softcap, CAPPED)
    peak = tl.where(first_split, new, NOTHING)
    total = tl.where(first_split, tl.full((GROUP_P,), 1.0, tl.float32), 0.0)
    out = tl.where(first_split, v.to(tl.float32)[None, :] + tl.zeros((GROUP_P, DP), tl.float32), 0.0)
    if WITH_SINKS:
        sink = tl.load(SINKS + head, mask=g < GROUP, other=0.0).to(tl.float32) * LOG2_E
        sink = tl.where(first_split, sink, NOTHING * 2)
        higher = tl.maximum(peak, sink)
        out *= tl.exp2(peak - higher)[:, None]
        total = total * tl.exp2(peak - higher) + tl.exp2(sink - higher)
        peak = higher

    start = 0
    if WINDOWED:
        start = tl.maximum(0, cached + 1 - window)
    begin = start // BLOCK * BLOCK
    share = tl.cdiv(tl.cdiv(cached - begin, SPLITS), BLOCK) * BLOCK
    low = begin + split * share
    for position in range(low, tl.minimum(low + share, cached), BLOCK):
        page = mine + tl.load(table + position // SIZE).to(tl.int64) * page_stride + (position % SIZE) * D
        seen = (position + j < cached) & (position + j >= start)
        keys = tl.load(page + j[None, :] * D + d[:, None], mask=seen[None, :] & (d < D)[:, None], other=0.0)
        x = scores_of(tl.dot(q, keys, input_precision=PRECISION), scale, softcap, CAPPED)
        x = tl.where(seen[None, :], x, NOTHING)
        higher = tl.maximum(peak, tl.max(x, 1))
        shrink, p = tl.exp2(peak - higher), tl.exp2(x - higher[:, None])
        values = tl.load(
            page + half_stride + j[:, None] * D + d[None, :], mask=seen[:, None] & (d < D)[None, :], other=0.0
        )
        out = out * shrink[:, None] + tl.dot(p.to(values.dtype), values, input_precision=PRECISION)
        total = total * shrink + tl.sum(p, 1)
        peak = higher

    if SPLITS == 1:
        at = OUT + (row * HEADS + head)[:, None] * D + d[None, :]
        tl.store(at, (out / total[:, None]).to(OUT.dtype.element_ty), mask=real)
    else:
        part = (row * HEADS + head) * SPLITS + split
        tl.store(PARTS + part[:, None] * D + d[None, :], out, mask=real)
        tl.store(PEAKS + part, peak, mask=g < GROUP)
        tl.store(SUMS + part, total, mask=g < GROUP)


@triton.jit
def join(OUT, PARTS, PEAKS, SUMS, D: tl.constexpr, DP: tl.constexpr, SPLITS: tl.constexpr, SPLITS_P: tl.constexpr):
    """Program (row and head): merges the splits."""
    head = tl.program_id(0).to(tl.int64)
    s, d = tl.arange(0, SPLITS_P), tl.arange(0, DP)
    peaks = tl.load(PEAKS + head * SPLITS + s, mask=s < SPLITS, other=NOTHING)
    weights = tl.exp2(peaks - tl.max(peaks, 0))
    total = tl.sum(weights * tl.load(SUMS + head * SPLITS + s, mask=s < SPLITS, other=0.0), 0)
    real = (s < SPLITS)[:, None] & (d < D)[None, :]
    parts = tl.load(PARTS + (head * SPLITS + s)[:, None] * D + d[None, :], mask=real, other=0.0)
    out = tl.sum(parts * weights[:, None], 0) / total
    tl.store(OUT + head * D + d, out.to(OUT.dtype.element_ty), mask=d < D)


def paged_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kv_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    scale: float,
    softcap: float,
    window: int,
    sinks: Tensor | None,
    splits: int | None = None,
) -> Tensor:
    """`paged_attention`, by default with as many splits as fill the GPU."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    rows, heads, width = q.shape
    kv_heads, size = kv_pages.shape[2], kv_pages.shape[3]
    if splits is None:
        reach = min(window or 2**31, block_table.shape[1] * size)
        splits = max(1, min(PROGRAMS // (rows * kv_heads), reach // MIN_SPLIT))
    out = torch.empty(rows, heads, width, dtype=kv_pages.dtype, device=q.device)
    parts = peaks = sums = out
    if splits > 1:
        parts = torch.empty(rows, heads, splits, width, dtype=torch.float32, device=q.device)
        peaks, sums = (torch.empty(rows, heads, splits, dtype=torch.float32, device=q.device) for _ in range(2))
    group, width_p = heads // kv_heads, max(16, triton.next_power_of_2(width))
    block = min(BLOCK, size, BLOCK_BYTES // (2 * width_p * kv_pages.element_size()))
    launch(
        attend, (rows, kv_heads, splits),
        q, k, v, kv_pages, block_table, lengths, sinks if sinks is not None else q, out, parts, peaks, sums,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        kv_pages.stride(0), kv_pages.stride(1), kv_pages.stride(2), block_table.stride(0), scale, softcap, window,
        HEADS=heads, GROUP=group, GROUP_P=max(16, triton.next_power_of_2(group)), D=width, DP=width_p,
        SIZE=size, BLOCK=block, SPLITS=splits,
        CAPPED=softcap > 0, WINDOWED=window > 0, WITH_SINKS=sinks is not None,
        PRECISION="ieee" if kv_pages.dtype == torch.float32 else "tf32", num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    if splits > 1:
        launch(
            join, (rows * heads,),
            out, parts, peaks, sums, D=width, DP=width_p, SPLITS=splits,
            SPLITS_P=triton.next_power_of_2(splits), num_warps=2,
        )  # fmt: skip
    return out
