"""How the engines of this package draw a token: one uniform number each, which inverts the distribution.

A completion then depends on its seed alone, not on what shares its batch.
"""

import numpy as np
import torch
from torch import Tensor


def uniform_stream(seed: int, index: int, length: int) -> np.ndarray:
    """`length` float32 uniforms in [0, 1) that depend on `(seed, index)` alone (counter-based Philox)."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, index])).random(length, dtype=np.float32)


def invert(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the cumulated probability of `log_p (B, V)` exceeds `uniform (B,)` of the total."""
    cumulative = log_p.exp().cumsum(-1)
    total = cumulative[:, -1]
    # A number below the total always selects a token of non-zero probability.
    goal = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, goal[:, None], right=True).squeeze(1).clamp(max=log_p.shape[1] - 1)
