"""Private names of PyTorch."""

from contextlib import AbstractContextManager
from typing import Any


def separate_symbols() -> AbstractContextManager:
    """Inside, `torch.compile` gives every dynamic size a symbol of its own.

    `torch.fx.experimental._config.use_duck_shape`: by default sizes that are equal at first share a symbol, so that a
    number of rows that happens to be the width of a head would be compiled in; no public option changes that.
    """
    from torch.fx.experimental import _config

    config: Any = _config
    return config.patch(use_duck_shape=False)
