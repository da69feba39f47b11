"""The dry run's estimate of memory, beside what autograd keeps on a CPU and what was measured on GPUs."""

import pytest
import torch
from saved import saved_bytes
from tiny_models import documents, make

from open_r1.configs import ModelConfig, SFTConfig
from open_r1.modeling import flash
from open_r1.run.estimate import Shape, estimate_memory, estimate_seconds, layer_bytes, shape_of, tokens_in_pack

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


@pytest.mark.parametrize(
    ("given", "states", "kept", "working"),
    [
        ({}, 1.0, 1.0, 1.0),
        ({"activation_offloading": True}, 1.0, 2 / 28, 1.0),
        ({"mlp_chunk_tokens": 4096}, 1.0, 1.0, 0.5),
        ({"optim": "adamw_torch_8bit"}, 10 / 16, 1.0, 1.0),
        ({"optim": "paged_adamw_32bit"}, 8 / 16, 1.0, 1.0),
        (
            {"optim": "adamw_8bit"},
            (10 * QWEN_7B.parameters + 6 * QWEN_7B.embeddings) / (16 * QWEN_7B.parameters),
            1.0,
            1.0,
        ),
        ({"optim": "lion_32bit"}, 12 / 16, 1.0, 1.0),
        ({"optim": "sgd"}, 8 / 16, 1.0, 1.0),
        ({"sequence_parallel_size": 4, "max_tokens_per_microbatch": 8192}, 1.0, 1 / 4, 0.5),
    ],
)
def test_each_option_saves_what_it_says(given, states, kept, working):
    """Of the 7B shape on 8 processes of FSDP2, with documents of 65,536 tokens."""

    def estimate(**more):
        args = options(gradient_checkpointing=True, **more)
        return estimate_memory(QWEN_7B, args, model(), tokens_in_pack(args, 65536), 8, "fsdp")

    plain, found = estimate(), estimate(**given)
    assert found.states / plain.states == pytest.approx(states, rel=1e-3)
    assert found.kept / plain.kept == pytest.approx(kept, rel=1e-3)
    assert 0.3 * plain.working < found.working <= working * plain.working
    assert found.total == found.states + found.kept + found.working


@pytest.mark.parametrize(
    ("given", "more"),
    [({}, 28 * 2 * 3584), ({"activation_offloading": True}, 0), ({"gradient_checkpointing": False}, 0)],
)
def test_checkpointed_layers_keep_what_flash_attention_answers(monkeypatch, given, more):
    """`flash.keep_attention`, unless the checkpoints are offloaded: a bfloat16 number per token and query width."""

    def kept(name):
        return estimate_memory(QWEN_7B, options(**given), model(attn_implementation=name), 65536).kept

    assert kept("flash_attention_4") - kept("varlen") == 65536 * more
    for available, name in ((False, "varlen"), (True, "flash_attention_4")):
        monkeypatch.setattr(flash, "is_available", lambda available=available: available)
        assert kept(None) == kept(name)


@pytest.mark.parametrize(
    ("shape", "document", "rate"),
    [
        (QWEN_1_5B, 6200, 30.7e3),  # SFT of whole traces
        (QWEN_1_5B, 700, 347e12 / 6 / QWEN_1_5B.parameters),  # a GRPO step, computed tokens alone
        (QWEN_7B, 700, 403e12 / 6 / QWEN_7B.parameters),
    ],
)
def test_the_time_is_near_what_gpus_measured(shape, document, rate):
    """Tokens a second of an H100 with checkpointing: docs/performance.md."""
    assert 1e6 / estimate_seconds(shape, options(), 1_000_000, document) == pytest.approx(rate, rel=0.2)
