"""Advantages: how much better a completion is than the others of its group."""

from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4


def combine_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of `rewards (B, R)` over the R reward functions: `(B,)`.

    NaN marks a reward that does not apply; it is left out of the sum. A row with only NaN stays NaN.
    """
    total = (rewards * weights).nansum(dim=1)
    return torch.where(rewards.isnan().all(dim=1), torch.nan, total)


def group_advantages(
    rewards: Tensor, num_generations: int, scale: Literal["group", "batch", "none"], batch_std: float | None = None
) -> tuple[Tensor, Tensor]:
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    A_i = (r_i - mean(r)) / (std + 1e-4), with mean over the G = `num_generations` completions of the same prompt and
    std over the group (`group`), over the whole batch (`batch_std`, for `batch`), or 1 (`none`; Dr. GRPO, arXiv
    2503.20783).

    `rewards (B,)` has the groups one after another; B is a multiple of G. NaN (no verdict) gets advantage 0 and does
    not count in the mean or std. Returns `(advantages (B,), signal (B / G,))`. `signal` is False for groups whose
    rewards are all equal: their advantages are exactly 0.
    """
    groups = rewards.view(-1, num_generations)
    known = ~groups.isnan()
    count = known.sum(1, keepdim=True).clamp(min=1)
    mean = groups.nansum(1, keepdim=True) / count
    deviation = torch.where(known, groups - mean, 0.0)
    highest = torch.where(known, groups, -torch.inf).amax(1)
    lowest = torch.where(known, groups, torch.inf).amin(1)
    signal = highest > lowest
    if scale == "group":
        std = (deviation.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        advantages = deviation / (std + EPSILON)
    elif scale == "batch":
        if batch_std is None:
            raise ValueError("scale 'batch' needs batch_std")
        advantages = deviation / (batch_std + EPSILON)
    else:
        advantages = deviation
    return (advantages * signal[:, None]).flatten(), signal
