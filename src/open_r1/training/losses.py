"""Losses, a value per token: every normalization is a weight per token, so micro-batches never change a result.

M is the number of learned tokens in a pack; `sequence (M,)` says which completion a token belongs to.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo"]
CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


class BatchSize(NamedTuple):
    """What one optimizer step averages over, on all ranks together: the number of completions and of their tokens.
    Masked completions do not count; completions of groups without signal do."""

    completions: int
    tokens: int


def token_weight(loss_type: LossType, length: int, batch: BatchSize, max_completion_length: int) -> float:
    """The weight of each token of a completion of `length` tokens. The loss is the weighted sum over all tokens.

    - `grpo`: 1 / (B |o_i|), a mean over tokens, then over completions (DeepSeekMath, arXiv 2402.03300, eq. 3);
    - `bnpo`, `dapo`, `cispo`: 1 / sum_j |o_j|, a mean over all tokens (DAPO, arXiv 2503.14476, eq. 8);
    - `dr_grpo`: 1 / (B L), a constant length L = `max_completion_length` (arXiv 2503.20783, section 3.2).
    """
    if loss_type == "grpo":
        return 1 / (max(batch.completions, 1) * max(length, 1))
    if loss_type == "dr_grpo":
        return 1 / (max(batch.completions, 1) * max_completion_length)
    return 1 / max(batch.tokens, 1)


@dataclass(frozen=True)
class PolicyLossConfig:
    """Options of `policy_loss`; see `GRPOConfig` for each."""

    epsilon: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    level: Literal["token", "sequence"] = "token"
    beta: float = 0.0
    bias_correction_kl: bool = True
    cispo: bool = False


class PolicyLoss(NamedTuple):
    """`per_token (M,)` loss, differentiable; `clipped_low`, `clipped_high (M,)`: where the clip decides;
    `kl (M,)`: the k3 estimate, or None without a reference."""

    per_token: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    kl: Tensor | None


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    config: PolicyLossConfig,
    *,
    sequence: Tensor,
    num_sequences: int,
    importance_weights: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
) -> PolicyLoss:
    """The clipped surrogate of PPO (arXiv 1707.06347, eq. 7) as GRPO uses it (DeepSeekMath, arXiv 2402.03300, eq. 3).

    l_t = -min(rho_t A, clip(rho_t, 1 - epsilon, 1 + epsilon_high) A) w_t + beta k3_t, where rho is the token ratio
    exp(logprobs - old_logprobs) or, at level `sequence`, its geometric mean over the completion (GSPO, arXiv
    2507.18071, eq. 7); `delta` bounds rho from above in the unclipped term, so that a negative advantage cannot
    push without limit (INTELLECT-2, arXiv 2505.07291); w_t are detached `importance_weights`; and
    k3 = exp(r) - r - 1 with r = ref_logprobs - logprobs (DeepSeekMath, eq. 4), multiplied by rho if
    `bias_correction_kl` (DeepSeek-V3.2, arXiv 2512.02556).

    With `cispo` the ratio only weights the gradient, so that no token is dropped: -sg(min(rho_t, epsilon_high)) A
    log pi_t w_t, where sg is detached (CISPO, MiniMax-M1, arXiv 2506.13585, eq. 4 and 5; `epsilon_high` is the bound
    itself, as in ScaleRL, arXiv 2510.13786, and there is no lower one).

    All tensors are `(M,)`.
    """
    log_ratio = logprobs - old_logprobs
    if config.level == "sequence":
        log_ratio = sequence_mean(log_ratio, sequence, num_sequences)[sequence]
    ratio = _exp(log_ratio)
    if config.cispo:
        low, high = 0.0, config.epsilon_high
        per_token = -ratio.clamp(max=high).detach() * advantages * logprobs
    else:
        low, high = 1 - config.epsilon, 1 + config.epsilon_high
        bounded = ratio if config.delta is None else ratio.clamp(max=config.delta)
        per_token = -torch.minimum(bounded * advantages, ratio.clamp(low, high) * advantages)
    if importance_weights is not None:
        per_token = per_token * importance_weights
    kl = None
    if ref_logprobs is not None:
        log_ref = ref_logprobs - logprobs
        kl = _exp(log_ref) - log_ref - 1
        penalty = kl * ratio if config.bias_correction_kl else kl
        per_token = per_token + config.beta * penalty
    return PolicyLoss(
        per_token,
        clipped_low=(ratio < low) & (advantages < 0),
        clipped_high=(ratio > high) & (advantages > 0),
        kl=None if kl is None else kl.detach(),
    )


def importance_weights(
    old_logprobs: Tensor,
    sampler_logprobs: Tensor,
    mode: CorrectionMode,
    clip_max: float,
    *,
    sequence: Tensor,
    num_sequences: int,
) -> Tensor:
    """Detached weights `(M,)` that correct for a sampler whose probabilities differ from the trainer's.

    w = min(pi_old / pi_sampler, C) per token (truncated importance sampling, Ionides 2008, as Yao et al. 2025 use it in
    "Your efficient RL framework secretly brings you off-policy RL training"). `mask` sets ratios above C to 0 instead.
    `sequence` takes the ratio of the whole completion. A token to which the trainer gives probability 0 has ratio 0,
    whatever the sampler gave it, so every weight is finite.
    """
    impossible = torch.full_like(old_logprobs, -math.inf).detach()
    log_ratio = torch.where(old_logprobs == -math.inf, impossible, old_logprobs.detach() - sampler_logprobs)
    if mode.startswith("sequence"):
        total = torch.zeros(num_sequences, dtype=log_ratio.dtype, device=log_ratio.device)
        log_ratio = total.index_add(0, sequence, log_ratio)[sequence]
        log_ratio = torch.where(log_ratio.isnan(), impossible, log_ratio)  # inf - inf
    ratio = log_ratio.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(max=clip_max)
    return torch.where(ratio <= clip_max, ratio, torch.zeros_like(ratio))


def _exp(x: Tensor) -> Tensor:
    """exp, bounded so that the product of two is finite in float32: an infinite ratio times an advantage of 0 would be
    NaN."""
    return x.clamp(max=40.0).exp()


def sequence_mean(values: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """Mean of `values (M,)` over the tokens of each sequence: `(num_sequences,)`."""
    zeros = torch.zeros(num_sequences, dtype=values.dtype, device=values.device)
    count = zeros.index_add(0, sequence, torch.ones_like(values)).clamp(min=1)
    return zeros.index_add(0, sequence, values) / count
