"""Estimates the memory and time of a training process from the shape of the model.

The formulas are for eager, Llama-like layers. They are within a tenth of values measured on H100s
(docs/performance.md, `tests/run/test_estimate.py`). The docs mark such numbers as computed.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PretrainedConfig

from open_r1.configs import GRPOConfig, ModelConfig, TrainConfig
from open_r1.modeling import flash
from open_r1.modeling.head import MAX_LOGITS_COMPILED
from open_r1.training.backends import splits_weights
from open_r1.training.deepspeed_setup import deepspeed_requested
from open_r1.training.optimizers import keeps_embeddings_whole, moment_bytes

Split = Literal["none", "ddp", "zero2", "zero3", "fsdp"]
"""What is sharded over the processes of a run; see docs/clusters.md."""
COMPILED = 0.7
"""Share of a layer's activations that a compiled layer stores (measured: 42.6 GiB instead of 55.4)."""
FLOPS = 450e12
"""Floating-point operations per second, including recomputation and attention, that H100s and H200s reach in
bfloat16."""


@dataclass(frozen=True)
class Shape:
    """The shape of a model: numbers of `parameters`, of LoRA's `adapters` (0: none) and of `embeddings` (one table, as
    large as the head); number of `layers`, hidden size (`width`), `inner` size of an MLP, and total sizes of the
    `queries` and `keys` of a token."""

    parameters: int
    adapters: int
    embeddings: int
    layers: int
    width: int
    inner: int
    queries: int
    keys: int
    normalizes_queries: bool

    @property
    def trained(self) -> int:
        return self.adapters or self.parameters


def shape_of(config: PretrainedConfig, skeleton: nn.Module, model: ModelConfig) -> Shape:
    """The shape of `skeleton`, the model of `config` without weights. Experts count as the ones that a token takes."""
    text: Any = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    linear = [m for name, m in skeleton.named_modules() if isinstance(m, nn.Linear) and "lm_head" not in name]
    experts = getattr(text, "num_experts_per_tok", None)
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    inner = max(inner) if isinstance(inner, list) else inner
    if isinstance(experts, int):
        inner = experts * (getattr(text, "moe_intermediate_size", None) or inner)
    keys = getattr(text, "num_key_value_heads", None) or heads
    return Shape(
        parameters=sum(p.numel() for p in skeleton.parameters()),
        adapters=sum(model.lora_r * (m.in_features + m.out_features) for m in linear) if model.use_peft else 0,
        embeddings=text.vocab_size * text.hidden_size,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=inner,
        queries=head_size * heads,
        keys=head_size * keys,
        normalizes_queries=any(name.endswith("q_norm") for name, _ in skeleton.named_modules()),
    )


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: `states` (weights, gradients, optimizer), `kept` for the backward pass, and `working`, the
    peak of short-lived memory in addition to both."""

    states: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        return self.states + self.kept + self.working

    def __str__(self) -> str:
        parts = (self.total, self.states, self.kept, self.working)
        total, states, kept, working = (f"{size / 2**30:.1f}" for size in parts)
        return f"about {total} GiB: states {states}, kept activations {kept}, short-lived {working}"


def split_of(args: TrainConfig) -> Split:
    """How the launcher of this run wants it sharded."""
    if splits_weights(args):
        return "zero3" if deepspeed_requested() else "fsdp"
    if deepspeed_requested():
        return "zero2"
    return "ddp" if args.world_size > 1 else "none"


def tokens_in_pack(args: TrainConfig, longest: int) -> int:
    """Tokens of the largest pack in one process, if the longest sequence has `longest`."""
    return max(args.max_tokens_per_microbatch, -(-longest // args.sequence_parallel_size))


def estimate_memory(
    shape: Shape, args: TrainConfig, model: ModelConfig, tokens: int, processes: int = 1, split: Split = "none"
) -> Memory:
    """Memory of one of `processes`, with packs of `tokens` tokens per process.

    - States, with w bytes per weight and m per weight for the optimizer: 2 w + m for a trained weight, w for a frozen
      one. They are whole with `none` and `ddp` (which also copies gradients into buckets: w more), split over the
      processes with `zero3` and `fsdp`; with `zero2`, 4 of 16 bytes are whole. `fsdp` and `zero3` also gather
      embeddings, head and two layers in bfloat16.
    - Kept for the backward pass: with checkpointing, the input of every layer (only of two with offloading; without
      offloading also the output of flash-attn-4), else `layer_bytes`.
    - Working memory, the larger of two peaks: the end of the forward pass, when autocast has a bfloat16 copy of every
      trained float32 weight, and the backward pass in one layer or in the head (its gradient in float32, a copy in
      bfloat16, and a chunk of logits).
    """
    half = bool(args.bf16) or model.pure_bf16
    weight = 2 if model.pure_bf16 else 4
    split_weights = split in ("zero3", "fsdp")
    casts = half and weight == 4 and split in ("none", "ddp")
    states = _states(shape, args, weight, processes, split)
    layer = layer_bytes(shape, args, half=half, casts=casts)
    inner = (8 if half else 16) * shape.inner * (COMPILED if args.torch_compile else 1)
    beside_inner = layer - inner
    if shape.adapters:  # which take their inputs in float32
        inner += 4 * shape.inner
        beside_inner += 20 * shape.width + 4 * shape.queries
    in_layer = tokens * beside_inner + min(tokens, args.mlp_chunk_tokens or tokens) * inner
    layers_kept = 2 if args.activation_offloading else shape.layers
    checkpoint = (2 if half and not casts else 4) * shape.width
    if uses_flash(model) and not args.activation_offloading:
        checkpoint += 2 * shape.queries
    kept = tokens * (layers_kept * checkpoint if args.gradient_checkpointing else shape.layers * layer)
    logits = min(MAX_LOGITS_COMPILED, tokens * shape.embeddings // shape.width)
    copies = 2 * shape.trained if casts and not shape.adapters else 0
    together = 2 * (2 * shape.embeddings + 2 * shape.parameters // shape.layers) if split_weights else 0
    head_copy = 2 * shape.embeddings if half and weight == 4 else 0
    forward = copies + head_copy + 4 * logits
    in_head = 6 * logits + head_copy + (0 if shape.adapters else 4 * shape.embeddings)
    working = max(forward, in_head, int(in_layer) if args.gradient_checkpointing else 0) + together
    return Memory(int(states), int(kept), working)


def uses_flash(model: ModelConfig) -> bool:
    """Whether flash-attn-4 is used: it was requested, or is the fastest kernel on this machine."""
    name = model.attn_implementation
    return name == "flash_attention_4" or (name is None and flash.is_available())


def _states(shape: Shape, args: TrainConfig, weight: int, processes: int, split: Split) -> float:
    moments = moment_bytes(args, weight)
    whole_moments = shape.embeddings * (8 - moments) if keeps_embeddings_whole(args) and not shape.adapters else 0
    optimizer = shape.trained * moments + whole_moments
    weights, gradients = shape.parameters * weight, shape.trained * weight
    if isinstance(args, GRPOConfig) and args.beta != 0 and not shape.adapters:
        weights *= 2  # the reference
    if split in ("zero3", "fsdp"):
        return (weights + gradients + optimizer) / processes
    if split == "zero2":
        return weights + (gradients + optimizer) / processes
    return weights + gradients * (2 if split == "ddp" else 1) + optimizer


def layer_bytes(shape: Shape, args: TrainConfig, *, half: bool, casts: bool) -> float:
    """Bytes per token that a layer stores for its backward pass: hidden states in and around two norms, inputs of the
    matrices, queries, keys, values and outputs of attention, and four vectors of the MLP's inner size. `casts`:
    autocast makes a copy of each matrix's input."""
    width, queries, keys, inner = shape.width, shape.queries, shape.keys, shape.inner
    if half:
        size = (26 if casts else 16) * width + 6 * queries + 4 * keys + 8 * inner
    else:
        size = 24 * width + 12 * queries + 8 * keys + 16 * inner
    if shape.normalizes_queries:
        size += (6 if half else 8) * (queries + keys)
    return size * (COMPILED if args.torch_compile else 1)


def estimate_seconds(shape: Shape, args: TrainConfig, tokens: int, document: float, processes: int = 1) -> float:
    """Seconds of a step of `tokens` on `processes` GPUs that each do `FLOPS`.

    2 operations a parameter and token forward and 4 backward (2 without gradients of weights), 2 more with
    checkpointing (Kaplan et al., arXiv 2001.08361, section 2.1), and for attention, which is causal, 2 a layer, query
    width and token of the document (the mean length, weighted by tokens), times 1, 2.5 and 1.
    """
    passes = 2 + (2 if shape.adapters else 4) + 2 * args.gradient_checkpointing
    matrices = passes * shape.parameters
    if args.mlp_chunk_tokens is not None:
        matrices += 2 * 3 * shape.layers * shape.width * shape.inner
    attention = (3.5 + args.gradient_checkpointing) * 2 * shape.layers * shape.queries * document
    return tokens * (matrices + attention) / (processes * FLOPS)
