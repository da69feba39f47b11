"""Which rows every rank reads at every optimizer step: reproducible, resumable, the same for any world size."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class StepSampler(Sampler[list[int]]):
    """Yields, per optimizer step, this rank's row indices.

    An epoch is a permutation of the rows (or their order, without `shuffle`), cut into global batches of
    `batch_size`; rank r of W takes every W-th row of a batch, from the r-th. Each batch is repeated `repeat` times
    in a row. An incomplete last batch is kept unless `drop_last`; ranks without a row of it then get none.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        repeat: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.repeat = repeat
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draws another permutation for every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.num_rows, self.batch_size)
        return (whole + (rest > 0 and not self.drop_last)) * self.repeat

    def rows_of_batch(self, batch: int) -> list[int]:
        """This rank's rows of a batch of the epoch."""
        return self._order()[batch * self.batch_size : (batch + 1) * self.batch_size][self.rank :: self.world_size]

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for batch in range(len(self) // self.repeat):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            for _ in range(self.repeat):
                yield rows[self.rank :: self.world_size]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.num_rows, generator=generator).tolist()


class StepLoader(DataLoader):
    """A DataLoader whose batches are lists of rows, as a `StepSampler` chooses them."""

    def __init__(self, dataset: Dataset, sampler: StepSampler) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=_as_list)
        self.step_sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of every epoch."""
        self.step_sampler.set_epoch(epoch)


def _as_list(rows: list[Any]) -> list[Any]:
    return rows
