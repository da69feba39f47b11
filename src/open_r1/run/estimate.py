"""The shape of a model, and how long a training step takes, computed from it (memory: `memory.py`)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from open_r1.configs import ModelConfig, TrainConfig
from open_r1.modeling import flash
from open_r1.training.backends import splits_weights
from open_r1.training.deepspeed_setup import deepspeed_requested
from open_r1.training.model import lora_targets

Split = Literal["none", "ddp", "zero2", "zero3", "fsdp"]
"""What is sharded over the processes of a run; see docs/clusters.md."""
FLOPS = 450e12
"""Floating-point operations per second, including recomputation and attention, that H100s and H200s reach in
bfloat16."""


@dataclass(frozen=True)
class Shape:
    """The shape of a model: numbers of `parameters`, of those that LoRA trains (`adapters`, 0 without LoRA) and of
    `embeddings` (one table, as large as the head, which is the same if `tied`); number of `layers`, hidden size
    (`width`), `inner` size of an MLP, and total sizes of the `queries` and `keys` of a token; sizes of its `heads` (of
    queries and of values)."""

    parameters: int
    adapters: int
    embeddings: int
    layers: int
    width: int
    inner: int
    queries: int
    keys: int
    normalizes_queries: bool
    tied: bool
    heads: frozenset[tuple[int, int]]

    @property
    def trained(self) -> int:
        return self.adapters or self.parameters

    @property
    def tables(self) -> int:
        """Parameters of embeddings and head."""
        return self.embeddings if self.tied else 2 * self.embeddings

    @property
    def layer_parameters(self) -> int:
        return (self.parameters - self.tables) // self.layers


def shape_of(config: PretrainedConfig, skeleton: PreTrainedModel, model: ModelConfig) -> Shape:
    """The shape of `skeleton`, the model of `config` without weights. Experts count as the ones that a token takes."""
    text: Any = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    experts = getattr(text, "num_experts_per_tok", None)
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    inner = max(inner) if isinstance(inner, list) else inner
    if isinstance(experts, int):
        inner = experts * (getattr(text, "moe_intermediate_size", None) or inner)
    keys = getattr(text, "num_key_value_heads", None) or heads
    return Shape(
        parameters=sum(p.numel() for p in skeleton.parameters()),
        adapters=_adapters(skeleton, model) if model.use_peft else 0,
        embeddings=text.vocab_size * text.hidden_size,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=inner,
        queries=head_size * heads,
        keys=head_size * keys,
        normalizes_queries=any(name.endswith("q_norm") for name, _ in skeleton.named_modules()),
        tied=skeleton.get_output_embeddings().weight is skeleton.get_input_embeddings().weight,
        heads=frozenset(flash.head_sizes(skeleton)),
    )


def _adapters(skeleton: nn.Module, model: ModelConfig) -> int:
    """Parameters that LoRA adds to linear layers, and those of modules that it trains as a whole."""
    count, targets = 0, lora_targets(model)
    for name, module in skeleton.named_modules():
        last = name.rpartition(".")[2]
        if last in (model.lora_modules_to_save or ()):
            count += sum(p.numel() for p in module.parameters())
        elif isinstance(module, nn.Linear) and (last in targets if targets else last != "lm_head"):
            count += model.lora_r * (module.in_features + module.out_features)
    return count


def split_of(args: TrainConfig) -> Split:
    """How the launcher of this run wants it sharded."""
    if splits_weights(args):
        return "zero3" if deepspeed_requested() else "fsdp"
    if deepspeed_requested():
        return "zero2"
    return "ddp" if args.world_size > 1 else "none"


def estimate_seconds(shape: Shape, args: TrainConfig, tokens: int, document: float, processes: int = 1) -> float:
    """Seconds of a step with `tokens` tokens on `processes` GPUs, each at a rate of `FLOPS`.

    Matrix products take, per parameter and token, 2 operations forward and 4 backward (2 without gradients of weights),
    and 2 more with checkpointing (Kaplan et al., arXiv 2001.08361, section 2.1). Causal attention takes, per token, 2
    operations per layer, query width and token of the `document` (the mean length, weighted by tokens) forward, 2.5
    times as many backward, and as many again with checkpointing.
    """
    passes = 2 + (2 if shape.adapters else 4) + 2 * args.gradient_checkpointing
    matrices = passes * shape.parameters
    if args.mlp_chunk_tokens is not None:
        matrices += 2 * 3 * shape.layers * shape.width * shape.inner
    attention = (3.5 + args.gradient_checkpointing) * 2 * shape.layers * shape.queries * document
    return tokens * (matrices + attention) / (processes * FLOPS)
