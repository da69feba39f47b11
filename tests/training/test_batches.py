"""Which rows a step reads: every row once an epoch, whatever the number of processes."""

from itertools import chain

import pytest
from datasets import Dataset

from open_r1.training.batches import StepSampler, rows_at


def batches(rank=0, world_size=1, epoch=0, rows=10, batch_size=4, **options):
    options = {"seed": 3, "shuffle": True, "drop_last": False} | options
    sampler = StepSampler(rows, batch_size, rank=rank, world_size=world_size, **options)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def rows_of(lists):
    return list(chain.from_iterable(lists))


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    first, second = (rows_of(batches(epoch=epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == rows_of(batches()) != rows_of(batches(seed=4))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_one_process(world_size):
    parts = [batches(rank, world_size) for rank in range(world_size)]
    for whole, *shares in zip(batches(), *parts, strict=True):
        assert sorted(rows_of(shares)) == sorted(whole)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_incomplete_last_batch_is_kept_or_dropped():
    assert [len(batch) for batch in batches()] == [4, 4, 2]
    assert [len(batch) for batch in batches(drop_last=True)] == [4, 4]


def test_a_batch_is_found_by_its_number():
    sampler = StepSampler(10, 4, seed=3, shuffle=True, drop_last=False, rank=1, world_size=2)
    assert [sampler.rows_of_batch(i) for i in range(len(sampler))] == list(sampler)


def test_rows_are_read_together_as_they_are_one_by_one():
    rows = [{"prompt": f"{i}", "prompt_ids": list(range(i))} for i in range(5)]
    wanted = [4, 0, 0, 2]
    assert rows_at(Dataset.from_list(rows), wanted) == rows_at(rows, wanted) == [rows[i] for i in wanted]
    assert rows_at(Dataset.from_list(rows), []) == []
