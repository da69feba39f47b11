"""Chooses the rows that each rank reads in each optimizer step: reproducible, resumable, the same for any world
size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainingArguments


class StepSampler(Sampler[list[int]]):
    """Yields, per optimizer step, this rank's row indices.

    An epoch is a permutation of the rows (or their order, without `shuffle`), split into global batches of
    `batch_size`. Rank r of W takes every W-th row of a batch, starting at the r-th. An incomplete last batch is used
    unless `drop_last`; some ranks may then get no rows.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draws a new permutation for every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.num_rows, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def rows_of_batch(self, batch: int) -> list[int]:
        """This rank's rows of a batch of the epoch."""
        return self._order()[batch * self.batch_size : (batch + 1) * self.batch_size][self.rank :: self.world_size]

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for batch in range(len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield rows[self.rank :: self.world_size]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.num_rows, generator=generator).tolist()


def total_steps(args: TrainingArguments, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)


class StepLoader(DataLoader):
    """A DataLoader whose batches are lists of rows, as a `StepSampler` chooses them."""

    def __init__(self, dataset: Dataset, sampler: StepSampler) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=_as_list)
        self.step_sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of every epoch."""
        self.step_sampler.set_epoch(epoch)


def step_numbers(steps_per_epoch: int) -> DataLoader:
    """The number of each optimizer step of an epoch, for a trainer that takes its rows from elsewhere."""
    return DataLoader(range(steps_per_epoch), collate_fn=_as_list)  # type: ignore[arg-type]


def rows_at(dataset: Any, indices: Sequence[int]) -> list[Mapping[str, Any]]:
    """The rows of a dataset or list; those of a dataset are read together, which is faster than one by one."""
    if not isinstance(dataset, datasets.Dataset):
        return [dataset[i] for i in indices]
    columns = dataset[list(indices)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _as_list(rows: list[Any]) -> list[Any]:
    return rows
