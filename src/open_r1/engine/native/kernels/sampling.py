"""Sampling by inverting one uniform number through the distribution, in two passes over the logits.

The first computes the maximum and the sum of exponentials of each block of the vocabulary; the second finds, row by
row, the block that contains the number, and the token in it. Truncation adds a search between them, for the smallest
logit to keep: it measures how much mass, or how many tokens, reach each of eight candidates, and repeats within the
remaining eighth of the range, until the logits in it fit into registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from open_r1.engine.native.kernels.launching import launch
from open_r1.engine.native.slots import FAILED, FULL, LIVE, MAX_STOPS, STOPPED, Slots
from open_r1.modeling.head import LogitRule

BLOCK = 4096
"""Logits that a program reads at once."""
REACH = 40.0
"""Distance from the largest logit to the smallest that can be kept: e^-40 of its probability vanishes in float32."""
PASSES = 8
"""Of the search at most, each an eighth as wide as the one before: 40 / 8^8 is a rounding error of logits."""
SEARCH_BLOCK, SEARCH_STAGES, SEARCH_WARPS = 1024, 3, 8
FEW = 2048
"""Logits that fit into registers."""


@triton.jit
def logits_of(ROW, at, real, temperature, scale, cap, CAPPED: tl.constexpr):
    """Float32 logits divided by temperature; -inf outside the vocabulary."""
    x = tl.load(ROW + at, mask=real, other=0.0).to(tl.float32) * scale
    if CAPPED:
        x = cap * (1 - 2 / (tl.exp(2 * x / cap) + 1))  # tanh
    return tl.where(real, x / temperature, float("-inf"))


@triton.jit
def temperature_of(TEMPERATURE, slot):
    t = tl.load(TEMPERATURE + slot)
    return tl.where(t == 0.0, 1.0, t), t == 0.0


@triton.jit
def block_sums(
    LOGITS, ROWS, TEMPERATURE, FLOORS, TOPS, SUMS, stride, scale, cap,
    V: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, CAPPED: tl.constexpr, FLOORED: tl.constexpr,
):  # fmt: skip
    """Program (row, block): the block's largest logit, and the sum of exp(logit - largest) of those that are kept."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature, _ = temperature_of(TEMPERATURE, tl.load(ROWS + row))
    at = block * BLOCK + tl.arange(0, BLOCK)
    x = logits_of(LOGITS + row * stride, at, at < V, temperature, scale, cap, CAPPED)
    top = tl.max(x, 0)
    p = tl.exp(x - top)
    if FLOORED:
        p = tl.where(x < tl.load(FLOORS + row), 0.0, p)  # NaN stays, and is detected later
    p = tl.where(at < V, p, 0.0)
    tl.store(TOPS + row * BLOCKS + block, top)
    tl.store(SUMS + row * BLOCKS + block, tl.sum(p, 0))


@triton.jit
def bracket(sums, goal, above):
    """The last of eight ascending candidates whose sum is at least `goal`, with its sum and that of the next."""
    ways = tl.arange(0, 8)
    last = tl.max(tl.where(sums >= goal, ways, 0), 0)
    at = tl.sum(tl.where(ways == last, sums, 0.0), 0)
    beyond = tl.where(last == 7, above, tl.sum(tl.where(ways == last + 1, sums, 0.0), 0))
    return last, at, beyond


@triton.jit
def search(
    ROW, SPARE, goal, reach, least, top, temperature, scale, cap,
    V: tl.constexpr, BLOCK: tl.constexpr, FEW: tl.constexpr, PASSES: tl.constexpr, CAPPED: tl.constexpr,
    COUNT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The largest threshold above `top - reach` that is reached by `goal` logits (`COUNT`), or by logits of mass
    `goal`, among those that are at least `least`. It lies between `low` and `low + 8 * step`; `above` reach the upper
    end."""
    ways = tl.arange(0, 8)
    low, step, above = top - reach, reach * (1 + 1e-6) / 8, 0.0
    if V > FEW:  # Triton 3.6 cannot compile a loop whose condition is known to be false.
        inside, passes = V + 0.0, 0
        while (inside > FEW) & (passes < PASSES):
            candidates = low + step * ways
            parts = tl.zeros((8, BLOCK), tl.float32)
            for start in tl.range(0, V, BLOCK, num_stages=STAGES):
                at = start + tl.arange(0, BLOCK)
                x = logits_of(ROW, at, at < V, temperature, scale, cap, CAPPED)
                weight = tl.where(x >= least, 1.0, 0.0)
                if not COUNT:
                    weight *= tl.exp(x - top)
                parts += tl.where(x[None, :] >= candidates[:, None], weight[None, :], 0.0)
            last, reached, above = bracket(tl.sum(parts, 1), goal, above)
            low += step * last
            step /= 8
            passes += 1
            inside = reached - above
            if not COUNT:
                inside *= tl.exp(top - low)  # each has at least the mass of the lower end

    count = 0
    for start in tl.range(0, V, BLOCK, num_stages=STAGES):
        at = start + tl.arange(0, BLOCK)
        x = logits_of(ROW, at, at < V, temperature, scale, cap, CAPPED)
        take = (x >= low) & (x < low + 8 * step) & (x >= least)
        place = count + tl.cumsum(take.to(tl.int32), 0) - 1
        tl.store(SPARE + place, x, mask=take & (place < FEW))
        count += tl.sum(take.to(tl.int32), 0)
    tl.debug_barrier()
    i = tl.arange(0, FEW)
    x = tl.load(SPARE + i, mask=i < count, other=float("-inf"))
    weight = tl.where(i < count, 1.0, 0.0)
    if not COUNT:
        weight *= tl.exp(x - top)
    for _ in range(PASSES):
        parts_of_few = tl.where(x[None, :] >= (low + step * ways)[:, None], weight[None, :], 0.0)
        last, _, _ = bracket(above + tl.sum(parts_of_few, 1), goal, above)
        low += step * last
        step /= 8
    return low


@triton.jit
def find_floors(
    LOGITS, ROWS, TEMPERATURE, TOP_K, TOP_P, MIN_P, TOPS, SUMS, SPARE, FLOORS, stride, scale, cap,
    V: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, BLOCKS_P: tl.constexpr, CAPPED: tl.constexpr,
    FEW: tl.constexpr, REACH: tl.constexpr, PASSES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Program (row): the smallest logit that top-k, then top-p, then min-p keep."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(ROWS + row)
    temperature, greedy = temperature_of(TEMPERATURE, slot)
    b = tl.arange(0, BLOCKS_P)
    tops = tl.load(TOPS + row * BLOCKS + b, mask=b < BLOCKS, other=float("-inf"))
    top = tl.max(tops, 0)
    total = tl.sum(tl.load(SUMS + row * BLOCKS + b, mask=b < BLOCKS, other=0.0) * tl.exp(tops - top), 0)
    logits, spare = LOGITS + row * stride, SPARE + row * FEW
    floor = top - 1.0e30
    k, p = tl.load(TOP_K + slot), tl.load(TOP_P + slot)
    if (k > 0) & (k < V) & (greedy == 0):
        floor = search(
            logits, spare, k.to(tl.float32), REACH + 0.0, floor, top, temperature, scale, cap,
            V, BLOCK, FEW, PASSES, CAPPED, True, STAGES,
        )  # fmt: skip
        total = 0.0
        for start in tl.range(0, V, BLOCK, num_stages=STAGES):
            at = start + tl.arange(0, BLOCK)
            x = logits_of(logits, at, at < V, temperature, scale, cap, CAPPED)
            total += tl.sum(tl.where(x >= floor, tl.exp(x - top), 0.0), 0)
    if (p < 1.0) & (greedy == 0):
        # All logits further below the largest have less than 1 - p of its mass together.
        reach = tl.minimum(tl.log(V / (1.0 - p)), REACH)
        nucleus = search(
            logits, spare, p * total, reach, floor, top, temperature, scale, cap,
            V, BLOCK, FEW, PASSES, CAPPED, False, STAGES,
        )  # fmt: skip
        floor = tl.maximum(floor, nucleus)
    smallest = tl.load(MIN_P + slot)
    floor = tl.where(smallest > 0.0, tl.maximum(floor, top + tl.log(tl.maximum(smallest, 1e-38))), floor)
    tl.store(FLOORS + row, tl.where(greedy, top - 1.0e30, floor))


@triton.jit
def choose(
    LOGITS, ROWS, TEMPERATURE, FLOORS, TOPS, SUMS, UNIFORMS, STOPS, LIMIT, TOKEN, LENGTH, SAMPLED, STATUS, TOKENS,
    LOGPROBS, stride, width, scale, cap,
    V: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, BLOCKS_P: tl.constexpr, CAPPED: tl.constexpr,
    FLOORED: tl.constexpr, STOP_COUNT: tl.constexpr, LIVE_: tl.constexpr, STOPPED_: tl.constexpr, FULL_: tl.constexpr,
    FAILED_: tl.constexpr,
):  # fmt: skip
    """Program (row): samples the token and updates the slot."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(ROWS + row)
    live = tl.load(STATUS + slot) == LIVE_
    sampled = tl.load(SAMPLED + slot)
    temperature, greedy = temperature_of(TEMPERATURE, slot)
    b = tl.arange(0, BLOCKS_P)
    tops = tl.load(TOPS + row * BLOCKS + b, mask=b < BLOCKS, other=float("-inf"))
    sums = tl.load(SUMS + row * BLOCKS + b, mask=b < BLOCKS, other=0.0)
    top = tl.max(tops, 0)
    weights = tl.where(sums > 0.0, sums * tl.exp(tops - top), sums)
    total = tl.sum(weights, 0)
    failed = (total != total) | (total <= 0.0) | (top == float("inf"))

    uniform = tl.load(UNIFORMS + slot * width + tl.minimum(sampled, width - 1), mask=live, other=0.0)
    goal = uniform * total
    cumulative = tl.cumsum(weights, 0)
    last = tl.max(tl.where(weights > 0.0, b, 0), 0)
    block = tl.minimum(tl.sum((cumulative <= goal).to(tl.int32), 0), last)
    before = tl.sum(tl.where(b < block, weights, 0.0), 0)
    block = tl.where(greedy, tl.min(tl.where(tops == top, b, BLOCKS), 0), block)
    block = tl.minimum(block, BLOCKS - 1)

    i = tl.arange(0, BLOCK)
    at = block * BLOCK + i
    x = logits_of(LOGITS + row * stride, at, at < V, temperature, scale, cap, CAPPED)
    p = tl.where(at < V, tl.exp(x - top), 0.0)
    if FLOORED:
        p = tl.where(x < tl.load(FLOORS + row), 0.0, p)
    last = tl.max(tl.where(p > 0.0, i, 0), 0)
    within = tl.minimum(tl.sum((tl.cumsum(p, 0) <= goal - before).to(tl.int32), 0), last)
    within = tl.where(greedy, tl.min(tl.where(x == top, i, BLOCK - 1), 0), within)
    # Rounding can select the token before the right one: never one without mass.
    within = tl.min(tl.where((i >= within) & ((p > 0.0) | (i == last)), i, BLOCK - 1), 0)
    token = (block * BLOCK + within).to(tl.int64)
    logprob = tl.sum(tl.where(i == within, x, 0.0), 0) - top - tl.log(total)

    s = tl.arange(0, STOP_COUNT)
    stopped = tl.max((tl.load(STOPS + slot * STOP_COUNT + s) == token).to(tl.int32), 0) == 1
    full = sampled + 1 >= tl.load(LIMIT + slot)
    status = tl.where(failed, FAILED_, tl.where(stopped, STOPPED_, tl.where(full, FULL_, LIVE_)))
    tl.store(STATUS + slot, status, mask=live)
    valid = live & (failed == 0)
    tl.store(TOKENS + slot * width + sampled, token.to(tl.int32), mask=valid)
    tl.store(LOGPROBS + slot * width + sampled, logprob, mask=valid)
    tl.store(TOKEN + slot, token, mask=valid)
    tl.store(SAMPLED + slot, sampled + 1, mask=valid)
    tl.store(LENGTH + slot, tl.load(LENGTH + slot) + 1, mask=valid)


def sample_triton(product: Tensor, slots: Slots, rows: Tensor, rule: LogitRule, truncate: bool) -> None:
    """`sampler.sample` as kernels."""
    count, vocabulary = product.shape
    blocks = triton.cdiv(vocabulary, BLOCK)
    tops, sums = (torch.empty(count, blocks, dtype=torch.float32, device=product.device) for _ in range(2))
    floors = torch.empty(count, dtype=torch.float32, device=product.device) if truncate else tops
    common = {"V": vocabulary, "BLOCK": BLOCK, "BLOCKS": blocks, "CAPPED": rule.cap is not None}
    numbers = (rule.scale, rule.cap or 0.0)
    wide = {**common, "BLOCKS_P": triton.next_power_of_2(blocks)}
    head = (product, rows, slots.temperature)
    if truncate:
        launch(
            block_sums, (count, blocks),
            *head, floors, tops, sums, product.stride(0), *numbers, **common, FLOORED=False, num_warps=8,
        )  # fmt: skip
        spare = torch.empty(count, FEW, dtype=torch.float32, device=product.device)
        launch(
            find_floors, (count,),
            *head, slots.top_k, slots.top_p, slots.min_p, tops, sums, spare, floors, product.stride(0), *numbers,
            **{**wide, "BLOCK": SEARCH_BLOCK}, FEW=FEW, REACH=REACH, PASSES=PASSES, STAGES=SEARCH_STAGES,
            num_warps=SEARCH_WARPS,
        )  # fmt: skip
    launch(
        block_sums, (count, blocks),
        *head, floors, tops, sums, product.stride(0), *numbers, **common, FLOORED=truncate, num_warps=8,
    )  # fmt: skip
    launch(
        choose, (count,),
        *head, floors, tops, sums, slots.uniforms, slots.stops, slots.limit, slots.token, slots.length, slots.sampled,
        slots.status, slots.tokens, slots.logprobs, product.stride(0), slots.uniforms.stride(0), *numbers, **wide,
        FLOORED=truncate, STOP_COUNT=MAX_STOPS, LIVE_=LIVE, STOPPED_=STOPPED, FULL_=FULL, FAILED_=FAILED, num_warps=8,
    )  # fmt: skip
