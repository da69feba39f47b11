"""How the engines of this package draw a token: one uniform number each, which inverts the distribution.

A completion then depends on its seed alone, not on what shares its batch.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor


def uniform_streams(streams: Iterable[tuple[int, int, int]]) -> Iterator[np.ndarray]:
    """For each `(seed, index, length)`, `length` float32 uniforms in [0, 1), which depend on seed and index alone
    (counter-based Philox)."""
    philox = np.random.Philox(0)  # one for all: creating one takes three times as long as drawing
    generator, start = np.random.Generator(philox), philox.state
    for seed, index, length in streams:
        key = start["state"]["key"]
        key[0], key[1] = seed % 2**64, index
        philox.state = start
        yield generator.random(length, dtype=np.float32)


def invert(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the cumulated probability of `log_p (B, V)` exceeds `uniform (B,)` of the total."""
    cumulative = log_p.exp().cumsum(-1)
    total = cumulative[:, -1]
    # A number below the total always selects a token of non-zero probability.
    goal = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, goal[:, None], right=True).squeeze(1).clamp(max=log_p.shape[1] - 1)
