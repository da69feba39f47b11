"""Private names of torch."""

from contextlib import AbstractContextManager
from typing import Any

from torch.fx.experimental import _config


def independent_dynamic_sizes() -> AbstractContextManager[None]:
    """What is compiled inside does not take two dynamic sizes for one because their examples are equal.

    `torch.fx.experimental._config.use_duck_shape`: `torch.compiler` has no public option for it.
    """
    config: Any = _config
    return config.patch(use_duck_shape=False)
