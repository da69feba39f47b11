"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): replaces groups whose rewards are all equal with groups of
other prompts, so that a step has more to learn from."""

from collections.abc import Sequence

import numpy as np
import torch

from open_r1.training.rounds import Round


def spare_rows(num_rows: int, used: Sequence[int], seed: int, number: int) -> list[int]:
    """All rows except `used`, in an order that depends only on the run's seed and the round's number."""
    order = np.random.default_rng([seed, number]).permutation(num_rows).tolist()
    taken = set(used)
    return [row for row in order if row not in taken]


def replace_groups(sampled: Round, places: Sequence[int], fresh: Round) -> Round:
    """Replaces the groups at `places` of `sampled` with those of `fresh`, in place. Returns the replaced groups."""
    if not places:
        return Round([], [], sampled.rewards[:0])
    group = len(sampled.completions[0])
    removed = Round(
        [sampled.prompts[p] for p in places],
        [sampled.completions[p] for p in places],
        sampled.rewards.view(-1, group, sampled.rewards.shape[-1])[list(places)].flatten(0, 1),
    )
    rewards = sampled.rewards.view(-1, group, sampled.rewards.shape[-1]).clone()
    rewards[torch.tensor(places)] = fresh.rewards.view(len(places), group, -1)
    sampled.rewards = rewards.flatten(0, 1)
    for place, prompt, completions in zip(places, fresh.prompts, fresh.completions, strict=True):
        sampled.prompts[place], sampled.completions[place] = prompt, completions
    for name, seconds in fresh.seconds.items():
        sampled.seconds[name] = sampled.seconds.get(name, 0.0) + seconds
    return removed
