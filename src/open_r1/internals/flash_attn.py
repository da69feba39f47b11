"""Private names of flash-attn-4.

Its public functions are `torch.autograd.Function`s, which break the graph of a compiled layer. An operation of PyTorch
needs separate functions for the forward and the backward pass.

`BIN_BATCH_SEARCH_THRESH`: for more than 256 documents the kernels use a table of blocks, which is another version of
each. The first such pack would compile them in the middle of a run, for 6 to 9 s each, so no pack uses the table.
"""

from flash_attn.cute import interface  # type: ignore[import-not-found]
from flash_attn.cute.interface import _flash_attn_bwd as backward
from flash_attn.cute.interface import _flash_attn_fwd as forward

interface.BIN_BATCH_SEARCH_THRESH = 2**31

__all__ = ["backward", "forward"]
