"""Private names of flash-attn-4.

Its public functions are `torch.autograd.Function`s, which break the graph of a compiled layer. An operation of PyTorch
needs separate functions for the forward and the backward pass.
"""

from flash_attn.cute.interface import _flash_attn_bwd as backward  # type: ignore[import-not-found]
from flash_attn.cute.interface import _flash_attn_fwd as forward

__all__ = ["backward", "forward"]
