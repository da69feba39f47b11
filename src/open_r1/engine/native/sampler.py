"""Samples the next token of each row on the device, by inverting the distribution at one uniform number.

The sample is a function of the logits and of that number alone, so a completion does not depend on the rest of the
batch. Truncation keeps the tokens whose logit reaches a threshold: the `top_k`-th largest logit, the smallest of the
fewest that hold `top_p` of the mass, or `min_p` of the largest probability, one after another as in transformers'
warpers. These plain operations specify the Triton kernels used on CUDA.
"""

import torch
from torch import Tensor

from open_r1.engine.drawing import invert
from open_r1.engine.native.slots import FAILED, FULL, LIVE, STOPPED, Slots
from open_r1.modeling.head import LogitRule


def sample(product: Tensor, slots: Slots, rows: Tensor, rule: LogitRule, truncate: bool) -> None:
    """Samples a token for each row of `product (B, V)`, the output of the head, and writes it into the slots `rows
    (B,)`. Without `truncate`, top-k, top-p and min-p must be off in every row."""
    if product.is_cuda:
        from open_r1.engine.native.kernels.sampling import sample_triton

        return sample_triton(product, slots, rows, rule, truncate)
    return sample_torch(product, slots, rows, rule, truncate)


def sample_torch(product: Tensor, slots: Slots, rows: Tensor, rule: LogitRule, truncate: bool) -> None:
    """`sample` in plain operations."""
    temperature = slots.temperature[rows]
    greedy = temperature == 0
    logits = rule.apply(product)[0] / torch.where(greedy, 1, temperature)[:, None]
    if truncate:
        floor = thresholds(logits, slots.top_k[rows], slots.top_p[rows], slots.min_p[rows])
        logits = logits.masked_fill((logits < torch.where(greedy, -torch.inf, floor)[:, None]), -torch.inf)
    log_p = logits.log_softmax(-1)
    sampled = slots.sampled[rows].long()
    uniform = slots.uniforms[rows, sampled.clamp(max=slots.uniforms.shape[1] - 1)]
    token = torch.where(greedy, logits.argmax(-1), invert(log_p, uniform))
    record(slots, rows, token, log_p.gather(-1, token[:, None]).squeeze(1))


def thresholds(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The smallest logit that each row of `logits (B, V)` keeps; ties with it are kept too."""
    falling = logits.sort(-1, descending=True).values
    last = torch.where(top_k > 0, top_k.clamp(max=logits.shape[1]), logits.shape[1]).long() - 1
    floor = falling.gather(-1, last[:, None])
    p = falling.masked_fill(falling < floor, -torch.inf).softmax(-1)
    before = p.cumsum(-1) - p
    fewest = (before < top_p[:, None]).sum(-1, keepdim=True).clamp(min=1)
    nucleus = falling.gather(-1, fewest - 1)
    nucleus = torch.where(top_p[:, None] < 1, nucleus, -torch.inf)
    relative = falling[:, :1] + min_p[:, None].log()
    return torch.maximum(torch.maximum(floor, nucleus), relative).squeeze(1)


def record(slots: Slots, rows: Tensor, token: Tensor, logprob: Tensor) -> None:
    """Writes the samples into those of the slots `rows` that are live, and ends the slots that are finished."""
    sampled, status = slots.sampled[rows], slots.status[rows]
    live = status == LIVE
    failed = live & ~logprob.isfinite()
    valid = live & ~failed
    ended = torch.full_like(status, LIVE)
    ended[sampled + 1 >= slots.limit[rows]] = FULL
    ended[(slots.stops[rows] == token[:, None]).any(1)] = STOPPED
    ended[failed] = FAILED
    slots.status[rows] = torch.where(live, ended, status)
    where, column = rows[valid], sampled[valid].long()
    slots.tokens[where, column] = token[valid].int()
    slots.logprobs[where, column] = logprob[valid].float()
    slots.token[where] = token[valid]
    slots.sampled[where] += 1
    slots.length[where] += 1
