"""Token logprobs and entropies of a causal language model, computed inside its forward.

The full `(tokens, vocabulary)` matrix of logits is never stored; see `head.py`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from open_r1.errors import UserError
from open_r1.internals.torch import traced_once
from open_r1.modeling import head as head_module
from open_r1.modeling.head import LogitRule, head_logprobs, logit_rule, statistics
from open_r1.modeling.mixers import separate_documents
from open_r1.modeling.rope import forget_lengths, length_rule
from open_r1.modeling.routers import ChosenExperts
from open_r1.modeling.sequence_parallel import SequenceGroup
from open_r1.training.packing import Pack, TokenSequence, build_pack


class TokenLogprobs(NamedTuple):
    """`logprobs (M,)` of the targets, differentiable, and `entropies (M,)` of the distributions they were drawn
    from, detached. Both are in nats, float32, at the given temperature. `experts (M,)`, for packs that have the
    sampler's: numbers of the experts that predicted the targets."""

    logprobs: Tensor
    entropies: Tensor
    experts: Tensor | None = None


class LogprobHead(nn.Linear):
    """A linear head that also answers `head(hidden, targets=..., rule=...)` with logprobs and entropies."""

    def forward(  # type: ignore[override]
        self, input: Tensor, targets: Tensor | None = None, rule: LogitRule | None = None, recompute: bool = True
    ) -> Any:
        """Logits, or `(logprobs (M,), entropies (M,))` of the targets; `recompute` as in `head_logprobs`."""
        if targets is None or rule is None:
            return super().forward(input)
        return head_logprobs(input, self.weight, self.bias, targets, rule, recompute)


def add_logprob_forward(model: PreTrainedModel) -> None:
    """Makes `model(pack=pack, temperature=t)` return `TokenLogprobs`. With `recompute=False`, the head stores what its
    backward pass needs of the logits.

    This is part of the module's own forward, because wrappers (DDP, FSDP, ZeRO, autocast) act only there. All other
    calls go to the original forward.
    """
    plain_forward = model.forward
    if type(head := model.get_output_embeddings()) is nn.Linear:
        head.__class__ = LogprobHead
    documents, chosen = separate_documents(model), ChosenExperts(model)
    rule = length_rule(model.config)

    @functools.wraps(plain_forward)
    def forward(
        *args: Any, pack: Pack | None = None, temperature: float = 1.0, recompute: bool = True, **kwargs: Any
    ) -> Any:
        documents.layout = None if pack is None else pack.layout
        if pack is None:
            return plain_forward(*args, **kwargs)
        if rule is not None and rule.kind == "dynamic":
            forget_lengths(model)
        group = pack.layout.group
        mine = slice(None) if group is None else group.slice_of(pack.num_tokens)
        with traced_once():  # the first pack may have as many tokens as a hidden state has numbers
            output = _decoder(model)(
                input_ids=pack.input_ids[:, mine],
                position_ids=pack.position_ids[:, mine],
                # transformers passes a four-dimensional mask through unchanged and does not build its own.
                attention_mask=torch.zeros(1, 1, 1, 1, device=pack.input_ids.device),
                layout=pack.layout,
                use_cache=False,
            )
        hidden = output.last_hidden_state[0]
        experts = chosen.fingerprints() if chosen and pack.fields.experts is not None else None
        if group is None:
            predictors = hidden.index_select(0, pack.predictors)
            found = token_logprobs(model, predictors, pack.targets, temperature, recompute)
            if experts is None:
                return found
            return TokenLogprobs(found.logprobs, found.entropies, experts.index_select(0, pack.predictors))
        own = ((pack.predictors >= mine.start) & (pack.predictors < mine.stop)).nonzero().squeeze(1)
        predictors, targets = pack.predictors[own] - mine.start, pack.targets[own]
        part = token_logprobs(model, hidden.index_select(0, predictors), targets, temperature, recompute)
        parts = [part.logprobs, part.entropies] + ([] if experts is None else [experts.index_select(0, predictors)])
        return TokenLogprobs(*(group.gather(values, own, len(pack.targets)) for values in parts))

    model.forward = forward  # type: ignore[method-assign]


def token_logprobs(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float = 1.0, recompute: bool = True
) -> TokenLogprobs:
    """Logprobs of `targets (M,)` given `hidden (M, H)`.

    The head is called once, as a module, because ZeRO-3 gathers and frees its weight around that call. A head that is
    more than a matrix (LoRA on `lm_head`) is called once per chunk, and always again in the backward pass.
    """
    head = model.get_output_embeddings()
    rule = logit_rule(model.config.get_text_config(), temperature)
    if isinstance(head, LogprobHead):
        return TokenLogprobs(*head(hidden, targets=targets, rule=rule, recompute=recompute))
    chunk = max(1, head_module.MAX_LOGITS // model.config.get_text_config().vocab_size)
    parts = [
        checkpoint(_through_module, head, h, t, rule, use_reentrant=False, preserve_rng_state=True)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return TokenLogprobs(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _through_module(head: nn.Module, hidden: Tensor, targets: Tensor, rule: LogitRule) -> tuple[Tensor, Tensor]:
    logprobs, _, entropies = statistics(head(hidden), targets, rule)
    return logprobs, entropies.detach()


def _decoder(model: PreTrainedModel) -> nn.Module:
    decoder = getattr(model, model.base_model_prefix, None)  # Llama 4 names another attribute than it has
    return model.model if decoder is None else decoder


CHECKED = 7, 5
"""Lengths in tokens of the documents that check a loaded model."""


@torch.no_grad()
def check_packed_forward(model: PreTrainedModel, group: SequenceGroup | None = None) -> None:
    """Raises UserError unless documents in one pack, shared by the processes of `group`, get the same logprobs as
    alone.

    This is the last guard against unknown architectures (an unusual head, positions or attention). Both are compared
    with the model's plain forward, on both sides of the length at which rotary embeddings change.
    """
    was_training = model.training
    model.eval()
    rule = length_rule(model.config)
    pairs = [CHECKED] + ([] if rule is None else [(rule.original + 3, rule.original + 3)])
    difference = max(_packed_difference(model, lengths, group) for lengths in pairs)
    model.train(was_training)
    tolerance = 1e-2 if model.dtype == torch.float32 else 0.5
    if not difference < tolerance:
        raise UserError(
            f"model_name_or_path: {type(model).__name__} does not compute the same logprobs packed"
            f"{'' if group is None else f' over {group.size} processes (sequence_parallel_size)'} and unpacked "
            f"(largest difference {difference:.3g}), so packed training would be wrong. Use a model type that "
            "docs/models.md lists, such as Llama, Qwen3, Qwen3.5, Gemma 3 or Mistral."
        )


def _packed_difference(model: PreTrainedModel, lengths: Sequence[int], group: SequenceGroup | None) -> float:
    """The largest difference of the last few logprobs of random documents of these lengths."""
    device, few = model.device, max(CHECKED) - 1
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    documents = [torch.randint(vocabulary, (n,), generator=generator) for n in lengths]
    learned = [torch.arange(len(d)) >= max(1, len(d) - few) for d in documents]
    sequences = [TokenSequence(d, m) for d, m in zip(documents, learned, strict=True)]
    packed = model(pack=build_pack(sequences, device, group=group))
    plain = []
    rule = length_rule(model.config)
    for document, mask in zip(documents, learned, strict=True):
        if rule is not None and rule.kind == "dynamic":
            forget_lengths(model)
        out = model(input_ids=document[None].to(device), use_cache=False, logits_to_keep=int(mask.sum()) + 1)
        logprobs = out.logits[0, :-1].float().cpu().log_softmax(-1)
        plain.append(logprobs.gather(-1, document[mask][:, None]).squeeze(-1))
    return (packed.logprobs.cpu() - torch.cat(plain)).abs().max().item()
