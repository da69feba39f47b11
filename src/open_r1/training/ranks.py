"""What the processes of a training run tell each other. Every method is collective."""

from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """This process is `rank` of `world_size`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank = accelerator.process_index
        self.world_size = accelerator.num_processes

    def sum(self, value: float) -> float:
        """Sum over all ranks."""
        if self.world_size == 1:
            return value
        return self.accelerator.reduce(self._tensor(value), "sum").item()

    def max(self, value: float) -> float:
        """The largest of all ranks."""
        if self.world_size == 1:
            return value
        return self.accelerator.gather(self._tensor([value])).max().item()

    def sums(self, values: Tensor) -> Tensor:
        """Element-wise sums over all ranks."""
        return values if self.world_size == 1 else self.accelerator.reduce(values, "sum")

    def std(self, values: Tensor) -> float:
        """Sample standard deviation of the values of all ranks; NaN values do not count."""
        known = values[~values.isnan()].double()
        count = self.sum(float(len(known)))
        mean = self.sum(known.sum().item()) / max(count, 1)
        return (self.sum((known - mean).square().sum().item()) / max(count - 1, 1)) ** 0.5

    def gather(self, mine: list[T]) -> list[T]:
        """The lists of all ranks, end to end."""
        return mine if self.world_size == 1 else gather_object(mine)

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        self.accelerator.wait_for_everyone()

    def share(self, count: int) -> range:
        """This rank's indices of `count` items."""
        return range(self.rank, count, self.world_size)

    def _tensor(self, value: float | list[float]) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
