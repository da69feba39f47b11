"""Estimates the memory of a training process from the shape of the model.

A step reaches its peak at one of a few moments. For each of them, the formulas add up the tensors of eager, Llama-like
layers. `tests/run/test_memory.py` compares the result with what PyTorch allocates and with measurements on GPUs. The
docs mark such numbers as computed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig, TrainConfig
from open_r1.modeling import flash
from open_r1.modeling.head import COMPUTED_CHUNKS, MAX_LOGITS_COMPILED, MAX_STORED
from open_r1.run.estimate import Shape, Split
from open_r1.training.activations import layers_are_graphs
from open_r1.training.optimizers import keeps_embeddings_whole, moment_bytes, optimizer_name

COMPILED = 0.7
"""Share of a layer's activations that a compiled layer stores (measured: 42.6 GiB instead of 55.4)."""
DEEPSPEED_BUCKET = 500_000_000
"""Number of gradients that DeepSpeed reduces at once by default (`reduce_bucket_size`), in a separate buffer."""


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


def packs_of(args: TrainConfig, longest: int) -> tuple[int, bool]:
    """Tokens of the largest pack in one process, if the longest sequence has `longest`, and whether a step has several
    packs."""
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    total = rows * (args.max_length if isinstance(args, SFTConfig) and args.packing else longest)
    tokens = max(longest, min(total, args.max_tokens_per_microbatch * args.sequence_parallel_size))
    return -(-tokens // args.sequence_parallel_size), total > tokens


@dataclass(frozen=True)
class Precision:
    """Bytes per number: of stored weights, of hidden states, and of the operands of matrix products."""

    weight: int
    hidden: int
    matrix: int

    @property
    def casts(self) -> bool:
        """Whether autocast copies float32 weights and hidden states to bfloat16."""
        return self.hidden > self.matrix

    @staticmethod
    def of(args: TrainConfig, model: ModelConfig, split: Split) -> "Precision":
        """The precision of a run. FSDP2 and DeepSpeed cast the weights themselves, so hidden states are in bfloat16,
        too."""
        weight, matrix = 2 if model.pure_bf16 else 4, 2 if args.bf16 or args.fp16 or model.pure_bf16 else 4
        return Precision(weight, weight if split in ("none", "ddp") else matrix, matrix)


class LayerBytes(NamedTuple):
    """Bytes per token that a layer stores for its backward pass: `attention` (the first norm, inputs of the first three
    matrices, queries, keys, values, output), `mlp` (the second norm, inputs of the MLP's first two matrices) and
    `inner` (vectors of the MLP's inner size: gate, its activation, the other factor, their product)."""

    attention: float
    mlp: float
    inner: float

    @property
    def total(self) -> float:
        return self.attention + self.mlp + self.inner


def layer_bytes(shape: Shape, args: TrainConfig, precision: Precision) -> LayerBytes:
    """What a layer stores. A norm stores its input in float32 and, for its own gradient, the normalized input. Autocast
    copies the input of each matrix. An adapter stores a copy of its input, a frozen matrix stores nothing."""
    width, heads = shape.width, 2 * precision.matrix * (shape.queries + shape.keys)
    if shape.adapters and precision.matrix == 2:
        attention, mlp = 10 * width + 2 * shape.queries, 8 * width
    elif precision.casts:
        attention, mlp = 14 * width, 12 * width
    else:
        attention = mlp = (8 if precision.hidden == 2 else 12) * width
    if shape.normalizes_queries:
        heads += (6 if precision.matrix == 2 else 8) * (shape.queries + shape.keys)
    stored = LayerBytes(attention + heads, mlp, 4 * precision.matrix * shape.inner)
    return LayerBytes(*(COMPILED * size for size in stored)) if args.torch_compile else stored


def estimate_memory(
    shape: Shape, args: TrainConfig, model: ModelConfig, longest: int, processes: int = 1, split: Split = "none"
) -> Memory:
    """The peak memory of one of `processes` in a step whose longest sequence has `longest` tokens.

    - States, with w bytes per weight and m per weight for the optimizer: 2 w + m for a trained weight, w for a frozen
      one. They are whole with `none` and `ddp` (which also copies gradients into buckets: w more), and split over the
      processes with `zero3` and `fsdp`; with `zero2`, the weights for computing are whole. DeepSpeed also has a buffer.
      If a step has only one pack, there are no gradients before its backward pass.
    - Kept: with checkpointing, the input of every layer (only of two with offloading; without offloading also the
      output of flash-attn-4, and what compiled layers keep around it), else `layer_bytes`.
    - Short-lived: see `_moments`. Without checkpointing, this includes what the head stores of the logits, because the
      backward pass frees it first.
    """
    tokens, several = packs_of(args, longest)
    precision, sharded = Precision.of(args, model, split), split in ("zero3", "fsdp")
    held, gradients = _states(shape, args, precision, processes, split)
    kept = tokens * shape.layers * _kept_by_layer(shape, args, model, precision, tokens, sharded)
    if precision.casts and shape.adapters and not args.gradient_checkpointing:
        kept += 2 * shape.layers * shape.layer_parameters  # autocast copies frozen matrices again for every use
    moments = _moments(shape, args, precision, tokens, several, sharded)
    moments.append((True, 0, _in_step(shape, args, precision, processes, split)))
    found = [
        Memory(int(held + (gradients if has_gradients else 0)), int(share * kept), int(working))
        for has_gradients, share, working in moments
    ]
    return max(found, key=lambda memory: memory.total)


def _states(shape: Shape, args: TrainConfig, precision: Precision, processes: int, split: Split) -> tuple[float, float]:
    """Bytes of weights, optimizer and buffers, which always exist, and of gradients."""
    weight = precision.weight
    moments = moment_bytes(args, weight)
    whole_moments = shape.embeddings * (8 - moments) if keeps_embeddings_whole(args) and not shape.adapters else 0
    optimizer = shape.trained * moments + whole_moments
    weights, gradients = shape.parameters * weight + 4 * shape.adapters, shape.trained * weight
    if isinstance(args, GRPOConfig) and args.beta != 0 and not shape.adapters:
        weights *= 2  # the reference
    if split == "fsdp":
        return (weights + optimizer) / processes, gradients / processes
    if split in ("zero2", "zero3"):  # weights and gradients in the dtype of products; float32 masters are split
        computed = precision.matrix / weight
        masters = weight * shape.trained if computed < 1 else 0
        whole = weights * computed / (processes if split == "zero3" else 1)
        buffer = precision.matrix * min(DEEPSPEED_BUCKET, shape.trained)
        return whole + (masters + optimizer) / processes + buffer, gradients * computed / processes
    return weights + optimizer + (gradients if split == "ddp" else 0), gradients


def _kept_by_layer(
    shape: Shape, args: TrainConfig, model: ModelConfig, precision: Precision, tokens: int, sharded: bool
) -> float:
    """Bytes per token that a layer keeps from its forward to its backward pass."""
    if not args.gradient_checkpointing:
        stored = layer_bytes(shape, args, precision)
        return stored.total if _mlp_tokens(args, tokens) == tokens else stored.attention + stored.mlp
    checkpoint = precision.hidden * shape.width
    if args.activation_offloading:
        return 2 * checkpoint / shape.layers
    if _checkpoints_in_graphs(shape, args, model, precision, sharded):
        return checkpoint + 2 * (2 * (shape.queries + shape.keys) + shape.width)
    return checkpoint + (2 * shape.queries if _uses_flash(shape, args, model, precision) else 0)


def _checkpoints_in_graphs(
    shape: Shape, args: TrainConfig, model: ModelConfig, precision: Precision, sharded: bool
) -> bool:
    """Whether compiled layers also keep queries, keys, values and the product after attention
    (`compiling.checkpoint_in_graphs`)."""
    uses_kernel = precision.matrix == 2 and model.attn_implementation != "sdpa" and not args.use_cpu
    drops = shape.adapters and model.lora_dropout > 0
    return args.torch_compile and uses_kernel and not drops and layers_are_graphs(args, sharded)


def _uses_flash(shape: Shape, args: TrainConfig, model: ModelConfig, precision: Precision) -> bool:
    option = model.attn_implementation
    device = "cpu" if args.use_cpu and option is None else "cuda"  # a machine without GPUs may plan for one
    dtype = torch.bfloat16 if precision.matrix == 2 else torch.float32
    return any(flash.is_used(sizes, device, dtype, option) for sizes in shape.heads)


def _mlp_tokens(args: TrainConfig, tokens: int) -> int:
    """Number of tokens that an MLP processes at once."""
    return min(tokens, args.mlp_chunk_tokens or tokens)


def _moments(
    shape: Shape, args: TrainConfig, precision: Precision, tokens: int, several: bool, sharded: bool
) -> list[tuple[bool, float, float]]:
    """The moments at which memory may peak while a pack is computed, in order. If there are several packs, this is not
    the first one.

    For each: whether all gradients exist, the share of kept memory that exists, and bytes of short-lived memory.
    `sharded`: embeddings and head are gathered once per pack, and their whole gradient exists until its end.
    """
    width, hidden, table = shape.width, tokens * precision.hidden * shape.width, precision.hidden * shape.embeddings
    all_logits = tokens * shape.embeddings // width
    logits = min(MAX_LOGITS_COMPILED, all_logits)
    stored = 0 if args.gradient_checkpointing else min(MAX_STORED, precision.matrix * all_logits)
    rest = all_logits - stored // precision.matrix
    computed = precision.matrix * min(COMPUTED_CHUNKS * MAX_LOGITS_COMPILED, rest)
    in_chunk = 4 * min(MAX_LOGITS_COMPILED, rest)
    trains_all = not shape.adapters
    copies = 2 * shape.layer_parameters * (shape.layers if trains_all else 1) if precision.casts else 0
    in_mlp = 10 * width * tokens + 3 * precision.matrix * shape.inner * _mlp_tokens(args, tokens)
    head = 2 * shape.embeddings if precision.casts else 0
    norm = (16 if precision.hidden == 4 else 12) * width * tokens  # the last one: input, normalized, output, predictors
    gradient = 4 * shape.embeddings if trains_all else 0
    converted = table if trains_all and precision.hidden == 2 else 0
    earlier = gradient if stored or rest > COMPUTED_CHUNKS * MAX_LOGITS_COMPILED else 0  # of earlier blocks of tokens
    head_gradient = max(computed + in_chunk + earlier, computed + gradient, gradient + converted)
    layer = _in_layer(shape, args, precision, tokens, sharded)
    accumulates = several and not sharded and not shape.tied  # the head's gradient is added to that of other packs
    waiting = table if trains_all and not accumulates else 0
    beside_all = table if trains_all and (sharded or (several and shape.tied)) else 0
    gathered = 2 * shape.tables if sharded else 0
    summed = table if shape.tied else 0  # the sum of the gradients of head and embedding
    embedding = (6 * shape.tables if sharded else table + beside_all + summed) if trains_all else 0
    return [
        (several, 1, gathered + copies + max(in_mlp, norm + head + stored + 4 * logits)),  # the end of the forward pass
        (
            several,
            1,
            gathered + head + norm + hidden + stored + head_gradient,
        ),  # the head's backward
        (several, 1, gathered + layer + waiting),  # the last layer's backward
        (True, 1 / shape.layers, gathered + layer + beside_all),  # the first layer's backward
        (True, 0, gathered + embedding),
    ]


def _in_layer(shape: Shape, args: TrainConfig, precision: Precision, tokens: int, sharded: bool) -> float:
    """Bytes of a layer's backward pass, in addition to what layers keep: what it has recomputed and the layer's
    weights; and in the MLP, two gradients of the inner size (an adapter's input in float32 and bfloat16), or in a norm,
    its input, its gradient and five results, in float32."""
    width, inner_tokens, matrix = shape.width, _mlp_tokens(args, tokens), precision.matrix
    layer = layer_bytes(shape, args, precision)
    attention = layer.attention - (4 * width if precision.hidden == 4 else 0)  # the checkpoint is the norm's input
    inner: float = (6 if shape.adapters and matrix == 2 else 2 * matrix) * shape.inner
    if args.gradient_checkpointing or inner_tokens < tokens:
        inner += layer.inner
    in_mlp: float = tokens * (precision.hidden + (10 if shape.adapters else 0)) * width + inner_tokens * inner
    in_norm: float = 28 * width * tokens
    if args.gradient_checkpointing:
        in_mlp += tokens * (attention + layer.mlp)
        in_norm += tokens * attention
    return max(in_mlp, in_norm) + _layer_weights(shape, precision, sharded)


def _layer_weights(shape: Shape, precision: Precision, sharded: bool) -> float:
    """Bytes of the weights of the layer in its backward pass, and of their gradients before they are added to the
    existing ones."""
    if sharded:  # this layer and the next one; gradients, and in float32 those of the previous layer, being reduced
        return (4 if shape.adapters else 10) * shape.layer_parameters
    copies = 2 * shape.layer_parameters if precision.casts else 0
    gradient = precision.matrix + (4 if precision.casts else 0)
    return copies + (0 if shape.adapters else gradient * shape.width * shape.inner)


def _in_step(shape: Shape, args: TrainConfig, precision: Precision, processes: int, split: Split) -> float:
    """Bytes for the step of the optimizer: DeepSpeed's share of gradients in float32 and, without a fused kernel, a
    temporary of the size of all trained weights."""
    share = shape.trained * precision.weight / (1 if split in ("none", "ddp") else processes)
    deepspeed = share if split in ("zero2", "zero3") and precision.matrix < precision.weight else 0
    return deepspeed + (share if optimizer_name(args) == "adamw_torch" else 0)
