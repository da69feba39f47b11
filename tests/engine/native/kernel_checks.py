"""Compares every Triton kernel with the plain torch function that specifies it.

python kernel_checks.py [float32|float16|bfloat16|sampling]      # on a GPU; all of them, or one
TRITON_INTERPRET=1 python kernel_checks.py    # in Triton's interpreter, on a CPU
"""

import itertools
import sys

import torch

from open_r1.engine.native import sampler
from open_r1.engine.native.attention import paged_attention_torch
from open_r1.engine.native.kernels.attention import paged_attention_triton
from open_r1.engine.native.kernels.sampling import sample_triton
from open_r1.engine.native.slots import FAILED, FULL, LIVE, STOPPED, Slots
from open_r1.modeling.head import LogitRule


def attention_case(device, dtype, heads=6, kv_heads=2, width=16, size=16, lengths=(0, 5, 16, 70, 33), seed=0):
    """Arguments of `paged_attention`: pages anywhere, garbage behind what is cached."""
    generator = torch.Generator().manual_seed(seed)
    rows, pages = len(lengths), max(lengths) // size + 1
    count = rows * pages + 1
    cache = torch.randn(count, 2, kv_heads, size, width, generator=generator)
    table = (torch.randperm(count - 1, generator=generator) + 1).view(rows, pages)
    for row, n in enumerate(lengths):
        cache[table[row, n // size], :, :, n % size :] = float("nan")
    q = torch.randn(rows, heads, width, generator=generator)
    # As models hand them over: rows of heads, transposed twice, so that strides are not those of a fresh tensor.
    k, v = (torch.randn(kv_heads, rows, width, generator=generator).transpose(0, 1) for _ in range(2))
    floats = [x.to(device, dtype) for x in (q, k, v, cache)]
    return *floats, table.int().to(device), torch.tensor(lengths).int().to(device)


EVERY_OPTION = tuple(itertools.product((1, 4), (0, 7), (0.0, 2.0), (False, True)))
ALL_OR_NOTHING = ((1, 0, 0.0, False), (4, 0, 0.0, False), (4, 7, 2.0, True))
"""Splits, window, softcap, sinks: each combination is a kernel to compile, so large shapes get three."""


def check_attention(device, dtype, tolerance, lengths=(0, 5, 16, 70, 33), combinations=EVERY_OPTION, **shape):
    """Output and cache."""
    sinks = torch.randn(shape.get("heads", 6), generator=torch.Generator().manual_seed(1)).to(device)
    for splits, window, cap, with_sinks in combinations:
        case = attention_case(device, dtype, lengths=lengths, **shape)
        q, k, v, cache, *index = case
        expected_cache = cache.clone()
        options = (0.3, cap, window, sinks if with_sinks else None)
        expected = paged_attention_torch(q, k, v, expected_cache, *index, *options)
        found = paged_attention_triton(q, k, v, cache, *index, *options, splits=splits)
        torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(cache, expected_cache, rtol=0, atol=0, equal_nan=True)


def sampling_case(device, rows, vocabulary, seed=0, **options):
    """Logits, and slots in the middle of their completions."""
    generator = torch.Generator().manual_seed(seed)
    slots = Slots.empty(rows + 2, 6, 1, torch.device("cpu"))
    slots.status[:-1] = LIVE
    slots.sampled[:-1] = torch.arange(rows + 2) % 5
    slots.length[:-1] = torch.arange(rows + 2) + 3
    slots.limit[:-1] = torch.where(torch.arange(rows + 2) % 7 == 0, 5, 6).int()
    slots.uniforms[:-1] = torch.rand(rows + 2, 6, generator=generator)
    slots.temperature[:-1] = torch.tensor([1.0, 0.7, 0.0, 1.5])[torch.arange(rows + 2) % 4]
    slots.top_p[:-1] = 1
    for name, values in options.items():
        getattr(slots, name)[:-1] = torch.tensor(values)[torch.arange(rows + 2) % len(values)]
    slots.stops[:-1, 1] = torch.randint(vocabulary, (rows + 2,), generator=generator).int()
    product = 3 * torch.randn(rows, vocabulary, generator=generator)
    product[0, 5] = float("nan")
    chosen = torch.randperm(rows + 2, generator=generator)[: rows - 1]
    chosen = torch.cat([chosen, torch.tensor([rows + 2])])
    slots = Slots(**{name: value.to(device) for name, value in vars(slots).items()})
    return product.to(device), slots, chosen.to(device)


def check_sampling(device, rows=12, vocabulary=9000, same_tokens=1.0):
    """What is written into slots, plain and truncated, for logit rules."""
    truncations = {"top_k": [0, 50, 3], "top_p": [1.0, 0.9, 0.5, 1.0, 0.2], "min_p": [0.0, 0.02]}
    for options, rule in itertools.product(({}, truncations), (LogitRule(), LogitRule(0.5, 2.0))):
        product, slots, chosen = sampling_case(device, rows, vocabulary, **options)
        expected = Slots(**{name: value.clone() for name, value in vars(slots).items()})
        sampler.sample_torch(product, expected, chosen, rule, bool(options))
        sample_triton(product, slots, chosen, rule, bool(options))
        same = expected.token == slots.token
        assert same.float().mean() >= same_tokens, (options, same)
        for name in ("status", "sampled", "length", "tokens"):
            found, right = getattr(slots, name)[same], getattr(expected, name)[same]
            torch.testing.assert_close(found, right, rtol=0, atol=0)
        torch.testing.assert_close(slots.logprobs[same], expected.logprobs[same], rtol=0, atol=2e-4)
        assert {FAILED, LIVE} <= set(slots.status.tolist()) <= {LIVE, STOPPED, FULL, FAILED}


def check_gpu(part):
    """One part of what a GPU checks."""
    if part == "sampling":
        check_sampling("cuda", rows=64, vocabulary=151936, same_tokens=0.95)
        check_sampling("cuda", rows=200, vocabulary=49152, same_tokens=0.95)
        for vocabulary in (7, 320, 2048, 2049):
            check_sampling("cuda", vocabulary=vocabulary, same_tokens=0.9)
        return
    dtype, tolerance = getattr(torch, part), {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}[part]
    check_attention("cuda", dtype, tolerance)
    for heads, kv_heads, width in ((9, 3, 64), (12, 2, 128), (28, 4, 128), (8, 4, 256), (32, 32, 96), (4, 2, 512)):
        shape = {"heads": heads, "kv_heads": kv_heads, "width": width, "size": 64}
        check_attention("cuda", dtype, tolerance, (0, 1, 63, 64, 65, 700, 1023), ALL_OR_NOTHING, **shape)


def main():
    """Every check that the device allows, or the parts of it that are named."""
    if torch.cuda.is_available():
        for part in sys.argv[1:] or ("float32", "float16", "bfloat16", "sampling"):
            check_gpu(part)
    else:
        check_attention("cpu", torch.float32, 1e-5)
        check_attention("cpu", torch.float16, 2e-3, (3, 40), heads=4, kv_heads=4, width=24, size=32)
        # So wide that a program reads less than a page at once.
        wide = {"heads": 2, "kv_heads": 1, "width": 512, "size": 32}
        check_attention("cpu", torch.float32, 1e-5, (0, 40, 95), ALL_OR_NOTHING, **wide)
        check_sampling("cpu")
        check_sampling("cpu", vocabulary=320)


if __name__ == "__main__":
    sys.exit(main())
