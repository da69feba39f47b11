"""Communication between the processes of a training run. Every method is collective."""

from itertools import chain
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """This process is `rank` of `world_size`.

    With `copies`, so many consecutive processes form one rank. They share packs and have the same values, which count
    once.
    """

    def __init__(self, accelerator: Accelerator, copies: int = 1) -> None:
        self.accelerator = accelerator
        self.copies = copies
        self.rank = accelerator.process_index // copies
        self.world_size = accelerator.num_processes // copies

    def sum(self, value: float) -> float:
        """Sum over all ranks."""
        return self.sums(self._tensor(value)).item() if self.world_size > 1 else value

    def max(self, value: float) -> float:
        """Maximum over all ranks."""
        if self.world_size == 1:
            return value
        return self.accelerator.gather(self._tensor([value])).max().item()

    def sums(self, values: Tensor) -> Tensor:
        """Element-wise sums over all ranks."""
        return values if self.world_size == 1 else self.accelerator.reduce(values, "sum") / self.copies

    def std(self, values: Tensor) -> float:
        """Sample standard deviation of the values of all ranks; NaN values do not count."""
        known = values[~values.isnan()].double()
        count = self.sum(float(len(known)))
        mean = self.sum(known.sum().item()) / max(count, 1)
        return (self.sum((known - mean).square().sum().item()) / max(count - 1, 1)) ** 0.5

    def gather(self, mine: list[T]) -> list[T]:
        """The concatenated lists of all ranks."""
        return mine if self.world_size == 1 else list(chain(*gather_object([mine])[:: self.copies]))

    def wait(self) -> None:
        """Returns when all ranks have reached this point."""
        self.accelerator.wait_for_everyone()

    def share(self, count: int) -> range:
        """This rank's indices of `count` items."""
        return range(self.rank, count, self.world_size)

    def _tensor(self, value: float | list[float]) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
