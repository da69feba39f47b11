"""Token logprobs and entropies of a causal language model, computed inside its forward, a chunk at a time.

A full `(tokens, vocabulary)` matrix of logits is never kept: hidden states go through the head in chunks, and
the backward pass computes each chunk again.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from open_r1.errors import UserError
from open_r1.training.packing import Pack, TokenSequence, build_pack

MAX_LOGITS = 2**26
"""Logits in one chunk (256 MiB in float32): tokens times vocabulary."""


class TokenLogprobs(NamedTuple):
    """`logprobs (M,)` of the targets, differentiable, and `entropies (M,)` of the distributions they were drawn
    from, detached. Both in nats, float32, at the temperature asked for."""

    logprobs: Tensor
    entropies: Tensor


def add_logprob_forward(model: PreTrainedModel) -> None:
    """Teaches `model` to answer `model(pack=pack, temperature=t)` with `TokenLogprobs`.

    It is the module's own forward that answers, because wrappers (DDP, FSDP, ZeRO, autocast) act only there.
    Every other call goes to the forward that was there before.
    """
    plain_forward = model.forward

    @functools.wraps(plain_forward)
    def forward(*args: Any, pack: Pack | None = None, temperature: float = 1.0, **kwargs: Any) -> Any:
        if pack is None:
            return plain_forward(*args, **kwargs)
        hidden = _decoder(model)(
            input_ids=pack.input_ids,
            position_ids=pack.position_ids,
            # A four-dimensional mask is passed through as it is: transformers then builds none of its own.
            attention_mask=torch.zeros(1, 1, 1, 1, device=pack.input_ids.device),
            layout=pack.layout,
            use_cache=False,
        ).last_hidden_state[0]
        return token_logprobs(model, hidden[pack.predictors], pack.targets, temperature)

    model.forward = forward  # type: ignore[method-assign]


def token_logprobs(model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> TokenLogprobs:
    """Logprobs of `targets (M,)` given `hidden (M, H)`, in chunks of at most `MAX_LOGITS` logits."""
    chunk = max(1, MAX_LOGITS // model.config.get_text_config().vocab_size)
    if len(targets) <= chunk:
        return TokenLogprobs(*_chunk(model, hidden, targets, temperature))
    parts = [
        checkpoint(_chunk, model, h, t, temperature, use_reentrant=False, preserve_rng_state=False)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return TokenLogprobs(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _chunk(model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    head = model.get_output_embeddings()
    logits = finish_logits(model, head(hidden).float()) / temperature
    normalizer = logits.logsumexp(-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normalizer
    with torch.no_grad():
        # H = log Z - sum_v p_v x_v, with p = exp(x - log Z)
        detached = logits.detach()
        probabilities = (detached - normalizer.detach()[:, None]).exp_()
        entropies = normalizer.detach() - (probabilities.mul_(detached)).sum(-1)
    return logprobs, entropies


def finish_logits(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """What some architectures do to logits after the head: scaling (Cohere, Granite), softcapping (Gemma)."""
    config = model.config.get_text_config()
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _decoder(model: PreTrainedModel) -> nn.Module:
    return getattr(model, model.base_model_prefix)


@torch.no_grad()
def check_packed_forward(model: PreTrainedModel) -> None:
    """Raises UserError unless two documents in one pack get the logprobs that each gets alone.

    A last guard against architectures that this module has not heard of (an unusual head, positions or
    attention): the two are compared with the model's plain forward.
    """
    was_training = model.training
    model.eval()
    device = model.device
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(model.config.get_text_config().vocab_size, (n,), generator=generator) for n in (7, 5)]
    sequences = [TokenSequence(d, torch.arange(len(d)) > 0) for d in documents]
    packed = model(pack=build_pack(sequences, device)).logprobs.cpu()
    plain = []
    for document in documents:
        logits = model(input_ids=document[None].to(device), use_cache=False).logits[0, :-1].float().cpu()
        plain.append(logits.log_softmax(-1).gather(-1, document[1:, None]).squeeze(-1))
    model.train(was_training)
    difference = (packed - torch.cat(plain)).abs().max().item()
    tolerance = 1e-2 if model.dtype == torch.float32 else 0.5
    if not difference < tolerance:
        raise UserError(
            f"model_name_or_path: {type(model).__name__} does not compute the same logprobs packed and alone "
            f"(largest difference {difference:.3g}), so packed training would be wrong for it. Use a model with full "
            "or sliding-window attention (Llama, Qwen2, Qwen3, Mistral, SmolLM, Gemma 3 ...)."
        )
