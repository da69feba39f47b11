"""The dry run's estimate of memory, beside what PyTorch allocates, what autograd keeps, and what GPUs measured."""

from dataclasses import replace

import pytest
import torch
from allocated import as_on_a_gpu, peak_bytes
from saved import saved_bytes
from shapes import ADAPTERS, QWEN_1_5B, QWEN_7B, model, options
from tiny_models import documents, make
from transformers import AutoModelForCausalLM, Qwen2Config

from open_r1.configs import GRPOConfig
from open_r1.modeling import flash, head
from open_r1.run import memory
from open_r1.run.estimate import shape_of
from open_r1.run.memory import Precision, estimate_memory, layer_bytes, packs_of

FLASH = "flash_attention_4"
MASTERS = {"dtype": torch.float32, "autocast": True}
HALF = {"dtype": torch.bfloat16, "autocast": True}
FULL = {"dtype": torch.float32, "autocast": False}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_keeps_what_autograd_keeps(kind, dtype, autocast):
    """Of two layers and one; copies of weights that autocast makes are not a layer's."""
    size = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 8, "num_key_value_heads": 2}
    tokens, models = 512, [make(kind, num_hidden_layers=n, head_dim=8, **size).to(dtype) for n in (1, 2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        one, two = (saved_bytes(m, documents([tokens])) for m in models)
    precision = Precision(dtype.itemsize, dtype.itemsize, 2 if autocast else dtype.itemsize)
    shape = shape_of(models[0].config, models[0], model())
    copies = 2 * sum(p.numel() for p in models[0].model.layers.parameters() if p.dim() > 1) if precision.casts else 0
    # On a CPU attention repeats keys and values for every query head, and orders its output.
    more = precision.matrix * (2 * (shape.queries - shape.keys) + shape.queries)
    expected = layer_bytes(shape, options(), precision).total + more
    assert expected == pytest.approx((two - one - copies) / tokens, rel=0.03)


STEPS = {
    "masters": MASTERS,
    "masters, several packs": MASTERS | {"packs": 2},
    "masters, short": MASTERS | {"tokens": 512, "packs": 2},
    "masters, chunks": MASTERS | {"chunk": 2048},
    "masters, stored": MASTERS | {"checkpointing": False},
    "masters, stored, chunks": MASTERS | {"checkpointing": False, "chunk": 2048},
    "half": HALF,
    "half, several packs": HALF | {"packs": 2},
    "half, short": HALF | {"tokens": 512, "packs": 2},
    "half, chunks": HALF | {"chunk": 2048},
    "half, stored": HALF | {"checkpointing": False},
    "half, stored, several packs": HALF | {"checkpointing": False, "packs": 2},
    "half, long": HALF | {"tokens": 40960},
    "half, partly stored": HALF | {"checkpointing": False, "stored": 2**28},
    "full": FULL,
    "full, several packs": FULL | {"packs": 2},
    "adapters": MASTERS | {"rank": 16},
    "adapters, chunks": MASTERS | {"rank": 16, "chunk": 2048},
    "adapters, stored": MASTERS | {"rank": 16, "checkpointing": False},
    "adapters on half": HALF | {"rank": 16},
    "adapters on half, stored": HALF | {"rank": 16, "checkpointing": False},
}


@pytest.mark.parametrize(("case", "tied"), [(case, i % 2 == 0) for i, case in enumerate(STEPS)])
def test_the_peak_is_what_pytorch_allocates(monkeypatch, case, tied):
    """Of a step of a model with 4 layers, without optimizer steps and kernels' own memory."""
    as_on_a_gpu(monkeypatch)
    config = Qwen2Config(
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"num_key_value_heads": 2, "vocab_size": 32768, "tie_word_embeddings": tied},
    )
    settings = {"tokens": 8192, "checkpointing": True, "packs": 1, "rank": 0, "chunk": None} | STEPS[case]
    most = settings.pop("stored", 2**33)
    for module in (head, memory):
        monkeypatch.setattr(module, "MAX_STORED", most)
    found = peak_bytes(config, **settings)
    args = options(
        per_device_train_batch_size=settings["packs"],
        max_tokens_per_microbatch=settings["tokens"],
        bf16=settings["autocast"],
        gradient_checkpointing=settings["checkpointing"],
        mlp_chunk_tokens=settings["chunk"],
    )
    options_of_model = model(
        pure_bf16=settings["dtype"] == torch.bfloat16,
        use_peft=settings["rank"] > 0,
        attn_implementation="varlen",
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    shape = shape_of(config, skeleton, options_of_model)
    expected = estimate_memory(shape, args, options_of_model, settings["tokens"])
    assert expected.total == pytest.approx(found, rel=0.05)


STORED = {"gradient_checkpointing": False}
COMPILED = {"torch_compile": True}
ONE, TWO = {"per_device_train_batch_size": 1}, {"per_device_train_batch_size": 2}
FLOAT32 = {"bf16": False}
MEASURED = [
    # shape, longest sequence, options, LoRA, bfloat16 weights, processes, split, GiB: docs/performance.md
    (QWEN_1_5B, 16384, {}, False, True, 1, "none", 15.3),
    (QWEN_1_5B, 16384, STORED | COMPILED, False, True, 1, "none", 46.01),  # GRPO: its packs are a little shorter
    (QWEN_1_5B, 16384, STORED | COMPILED, False, True, 1, "none", 49.06),  # SFT
    (QWEN_1_5B, 16384, COMPILED, False, True, 1, "none", 19.89),
    (QWEN_1_5B, 16384, {}, True, True, 1, "none", 7.2),
    (QWEN_1_5B, 16384, STORED | COMPILED, True, True, 1, "none", 41.24),
    (QWEN_7B, 16384, {}, False, True, 1, "none", 63.5),
    (QWEN_7B, 16384, {}, True, True, 1, "none", 23.7),
    (QWEN_1_5B, 16384, {}, False, False, 1, "none", 29.9),
    (QWEN_1_5B, 16384, {}, False, False, 2, "ddp", 35.3),
    (QWEN_1_5B, 16384, {}, False, False, 2, "fsdp", 15.8),
    (QWEN_1_5B, 16384, {}, False, False, 2, "zero2", 18.3),
    (QWEN_1_5B, 16384, {}, False, False, 2, "zero3", 18.2),
    (QWEN_7B, 8192, ONE, False, False, 2, "fsdp", 62.7),
    # benchmarks/long.py, computed in float32
    (QWEN_1_5B, 65536, ONE | FLOAT32, False, False, 1, "none", 46.06),
    (QWEN_1_5B, 16512, TWO | FLOAT32, False, False, 1, "none", 30.95),
    (QWEN_1_5B, 32896, TWO | FLOAT32, False, False, 1, "none", 37.90),
    (QWEN_7B, 65536, ONE | FLOAT32, True, False, 1, "none", 89.25),
    (QWEN_7B, 16512, TWO | FLOAT32, True, False, 1, "none", 44.39),
]


def estimated_gib(shape, longest, given, lora, pure=False, processes=1, split="none", attention="varlen"):
    """The estimate for a GPU."""
    if lora:
        shape = replace(shape, adapters=ADAPTERS[shape.parameters])
    args = options(**given)
    args.use_cpu = False
    options_of_model = model(use_peft=lora, pure_bf16=pure, attn_implementation=attention)
    return estimate_memory(shape, args, options_of_model, longest, processes, split).total / 2**30


@pytest.mark.parametrize(("shape", "longest", "given", "lora", "pure", "processes", "split", "gib"), MEASURED)
def test_the_estimate_is_near_what_gpus_measured(shape, longest, given, lora, pure, processes, split, gib):
    found = estimated_gib(shape, longest, given, lora, pure, processes, split)
    assert found == pytest.approx(gib, rel=0.06)


@pytest.mark.parametrize(("lora", "gib"), [(False, 55.4), (True, 51.6)])
def test_the_estimate_of_plain_layers_is_near_what_gpus_measured(monkeypatch, lora, gib):
    """Without checkpointing: docs/performance.md, measured when the head stored nothing of the logits."""
    monkeypatch.setattr(memory, "MAX_STORED", 0)
    assert estimated_gib(QWEN_1_5B, 16384, STORED, lora, pure=True) == pytest.approx(gib, rel=0.06)


CHUNKS = {"mlp_chunk_tokens": 4096}
OFFLOAD = CHUNKS | {"activation_offloading": True}
EIGHT_BITS, PAGED = OFFLOAD | {"optim": "adamw_8bit"}, OFFLOAD | {"optim": "paged_adamw_8bit"}
LONG = [
    # shape, LoRA, sequences, tokens of each, options, GiB: docs/long-contexts.md
    (QWEN_1_5B, False, 2, 16512, {}, 30.84),
    (QWEN_1_5B, False, 1, 32768, {}, 30.87),
    (QWEN_1_5B, False, 2, 32896, {}, 36.64),
    (QWEN_1_5B, False, 1, 65536, {}, 43.47),
    (QWEN_1_5B, False, 1, 131072, {}, 68.60),
    (QWEN_1_5B, True, 2, 16512, {}, 12.89),
    (QWEN_1_5B, True, 1, 32768, {}, 19.43),
    (QWEN_1_5B, True, 2, 32896, {}, 19.56),
    (QWEN_1_5B, True, 1, 65536, {}, 32.75),
    (QWEN_1_5B, True, 1, 131072, {}, 59.37),
    (QWEN_7B, True, 2, 16512, {}, 44.84),
    (QWEN_7B, True, 1, 32768, {}, 59.64),
    (QWEN_7B, True, 2, 32896, {}, 59.92),
    (QWEN_7B, True, 1, 65536, {}, 89.81),
    (QWEN_7B, True, 1, 65536, CHUNKS, 73.82),
    (QWEN_7B, True, 1, 65536, OFFLOAD, 39.22),
    (QWEN_7B, True, 1, 131072, CHUNKS, 118.52),
    (QWEN_7B, False, 2, 16512, OFFLOAD, 128.55),
    (QWEN_7B, False, 1, 32768, {}, 122.31),
    (QWEN_7B, False, 1, 32768, CHUNKS, 119.47),
    (QWEN_7B, False, 1, 32768, OFFLOAD, 117.12),
    (QWEN_7B, False, 1, 32768, EIGHT_BITS, 77.73),
    (QWEN_7B, False, 1, 32768, PAGED, 60.45),
    (QWEN_7B, False, 2, 32896, OFFLOAD, 129.45),
    (QWEN_7B, False, 1, 65536, OFFLOAD, 121.60),
    (QWEN_7B, False, 1, 131072, OFFLOAD, 130.61),
]


@pytest.mark.parametrize(("shape", "lora", "sequences", "tokens", "given", "gib"), LONG)
def test_the_estimate_of_long_contexts_is_near_what_a_gpu_measured(shape, lora, sequences, tokens, given, gib):
    given = given | {"per_device_train_batch_size": sequences}
    assert estimated_gib(shape, tokens, given, lora, attention=FLASH) == pytest.approx(gib, rel=0.03)


@pytest.mark.parametrize(
    ("given", "longest", "tokens", "several"),
    [
        ({"per_device_train_batch_size": 1}, 40000, 40000, False),
        ({"per_device_train_batch_size": 2}, 40000, 40000, True),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}, 40000, 40000, True),
        ({"per_device_train_batch_size": 4}, 1000, 4000, False),
        ({"per_device_train_batch_size": 32}, 1000, 16384, True),
        ({"per_device_train_batch_size": 1, "packing": True, "max_length": 32768}, 9000, 16384, True),
        ({"per_device_train_batch_size": 1, "packing": True, "max_length": 8192}, 3000, 8192, False),
        ({"per_device_train_batch_size": 1, "sequence_parallel_size": 4}, 40002, 10001 * 4 // 4, False),
    ],
)
def test_a_step_has_one_pack_or_several(given, longest, tokens, several):
    if "sequence_parallel_size" in given:
        given = given | {"max_tokens_per_microbatch": 4096}
    assert packs_of(options(**given), longest) == (tokens, several)


@pytest.mark.parametrize(
    ("given", "states", "kept", "working"),
    [
        ({}, 1.0, 1.0, 1.0),
        ({"activation_offloading": True}, 1.0, 2 / 28, 1.0),
        ({"mlp_chunk_tokens": 4096}, 1.0, 1.0, 0.6),
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
        return estimate_memory(QWEN_7B, args, model(), 65536, 8, "fsdp")

    plain, found = estimate(), estimate(**given)
    assert found.states / plain.states == pytest.approx(states, rel=1e-3)
    assert found.kept / plain.kept == pytest.approx(kept, rel=1e-3)
    assert 0.3 * plain.working < found.working <= working * plain.working
    assert found.total == found.states + found.kept + found.working


def test_an_optimizer_without_a_fused_kernel_needs_a_result_of_the_size_of_the_weights():
    def estimate(optim):
        return estimate_memory(QWEN_7B, options(optim=optim), model(), 128).total

    weights = 4 * QWEN_7B.parameters
    states = 4 * weights
    assert estimate("adamw_torch") == pytest.approx(states + weights)
    assert estimate("adamw_torch_fused") < states + weights


def test_a_reference_counts_once():
    args = [GRPOConfig(output_dir="out", use_cpu=True, bf16=True, beta=beta) for beta in (0.0, 0.1)]
    plain, found = (estimate_memory(QWEN_7B, a, model(), 16384) for a in args)
    assert found.states - plain.states == 4 * QWEN_7B.parameters


@pytest.mark.parametrize(
    ("option", "sizes", "given", "more"),
    [
        (FLASH, (128, 128), {}, 28 * 2 * 3584),
        (FLASH, (80, 80), {}, 0),
        (FLASH, (192, 128), {}, 0),
        (FLASH, (128, 128), {"activation_offloading": True}, 0),
        (FLASH, (128, 128), {"gradient_checkpointing": False}, 0),
        (FLASH, (128, 128), {"bf16": False}, 0),
        (None, (128, 128), {}, 28 * 2 * 3584),
        (None, (80, 80), {}, 0),
        ("sdpa", (128, 128), {}, 0),
    ],
)
def test_checkpointed_layers_keep_what_flash_attention_answers(monkeypatch, option, sizes, given, more):
    """`flash.keep_attention`, unless the checkpoints are offloaded: a bfloat16 number per token and query width."""
    args = options(**given)
    args.use_cpu = False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(flash, "_largest_head", lambda: 256)
    shape = replace(QWEN_7B, heads=frozenset({sizes}))

    def kept(name):
        return estimate_memory(shape, args, model(attn_implementation=name), 65536).kept

    assert kept(option) - kept("varlen") == 65536 * more


@pytest.mark.parametrize(
    ("given", "split", "option", "dropout", "more"),
    [
        ({}, "none", None, 0.0, 2 * (2 * 3584 + 2 * 512 + 3584)),
        ({}, "zero2", "varlen", 0.0, 2 * (2 * 3584 + 2 * 512 + 3584)),
        ({}, "fsdp", None, 0.0, 0),
        ({}, "none", "sdpa", 0.0, 0),
        ({}, "none", None, 0.1, 0),
        ({"mlp_chunk_tokens": 4096}, "none", None, 0.0, 0),
        ({"sequence_parallel_size": 2}, "none", None, 0.0, 0),
        ({"activation_offloading": True}, "none", None, 0.0, 0),
        ({"bf16": False}, "none", None, 0.0, 0),
    ],
)
def test_compiled_checkpointed_layers_keep_what_surrounds_attention(given, split, option, dropout, more):
    """Queries, keys, values, attention's answer and the product after it, if a layer is one graph."""
    shape = replace(QWEN_7B, heads=frozenset(), adapters=1000)

    def kept(compiled):
        args = options(torch_compile=compiled, **given)
        args.use_cpu = False
        name = model(attn_implementation=option, use_peft=True, lora_dropout=dropout)
        return estimate_memory(shape, args, name, 16384, 8, split).kept

    tokens = 16384 // given.get("sequence_parallel_size", 1)
    assert kept(True) - kept(False) == 28 * more * tokens
