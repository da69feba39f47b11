"""The dry run's estimate of memory, beside what autograd keeps on a CPU and what was measured on GPUs."""

import pytest
import torch
from saved import saved_bytes
from tiny_models import documents, make

from open_r1.configs import ModelConfig, SFTConfig
from open_r1.run.estimate import Shape, estimate_memory, layer_bytes, shape_of

QWEN_1_5B = Shape(1_543_714_304, 0, 233_373_696, 28, 1536, 8960, 1536, 256, False)
QWEN_7B = Shape(7_615_616_512, 0, 544_997_376, 28, 3584, 18944, 3584, 512, False)
ADAPTERS = {1_543_714_304: 18_464_768, 7_615_616_512: 40_370_176}


def options(**values):
    return SFTConfig(output_dir="out", use_cpu=True, **{"bf16": True, "max_tokens_per_microbatch": 16384} | values)


def model(**values):
    return ModelConfig(model_name_or_path="none", **values)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_keeps_what_autograd_keeps(kind, dtype, autocast):
    """Of two layers and one; copies of weights that autocast makes are not a layer's."""
    size = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 8, "num_key_value_heads": 2}
    tokens, models = 512, [make(kind, num_hidden_layers=n, head_dim=8, **size).to(dtype) for n in (1, 2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        one, two = (saved_bytes(m, documents([tokens])) for m in models)
    half, casts = autocast or dtype == torch.bfloat16, autocast and dtype == torch.float32
    shape = shape_of(models[0].config, models[0], model())
    copies = 2 * sum(p.numel() for p in models[0].model.layers.parameters() if p.dim() > 1) if casts else 0
    # On a CPU attention repeats keys and values for every query head.
    repeated = (4 if half else 8) * (shape.queries - shape.keys)
    expected = layer_bytes(shape, options(), half=half, casts=casts) + repeated
    assert expected == pytest.approx((two - one - copies) / tokens, rel=0.03)


MEASURED = [
    # shape, options, LoRA, bfloat16 weights, processes, split, GiB: docs/performance.md
    (QWEN_1_5B, {}, False, True, 1, "none", 15.3),
    (QWEN_1_5B, {"gradient_checkpointing": False}, False, True, 1, "none", 55.4),
    (QWEN_1_5B, {"gradient_checkpointing": False, "torch_compile": True}, False, True, 1, "none", 42.6),
    (QWEN_1_5B, {}, True, True, 1, "none", 7.2),
    (QWEN_1_5B, {"gradient_checkpointing": False}, True, True, 1, "none", 51.6),
    (QWEN_7B, {}, False, True, 1, "none", 63.5),
    (QWEN_7B, {}, True, True, 1, "none", 23.7),
    (QWEN_1_5B, {}, False, False, 1, "none", 29.9),
    (QWEN_1_5B, {}, False, False, 2, "ddp", 35.3),
    (QWEN_1_5B, {}, False, False, 2, "fsdp", 15.8),
    (QWEN_1_5B, {}, False, False, 2, "zero2", 18.3),
    (QWEN_1_5B, {}, False, False, 2, "zero3", 18.2),
    (QWEN_7B, {}, False, False, 2, "fsdp", 62.7),
]


@pytest.mark.parametrize(("shape", "given", "lora", "pure", "processes", "split", "gib"), MEASURED)
def test_the_estimate_is_near_what_gpus_measured(shape, given, lora, pure, processes, split, gib):
    if lora:
        shape = Shape(**vars(shape) | {"adapters": ADAPTERS[shape.parameters]})
    found = estimate_memory(shape, options(**given), model(use_peft=lora, pure_bf16=pure), 16384, processes, split)
    assert found.total / 2**30 == pytest.approx(gib, rel=0.15)
