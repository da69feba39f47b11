"""Work that the first training process does for all processes."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from open_r1.errors import UserError

T = TypeVar("T")


def by_first_process(process_index: int, act: Callable[[], T]) -> T:
    """Runs `act` in the first process and returns its result in all; a UserError is raised in all. Collective."""
    outcome: list[tuple[T | None, str | None]] = [(None, None)]
    if process_index == 0:
        try:
            outcome = [(act(), None)]
        except UserError as error:
            outcome = [(None, str(error))]
    if dist.is_initialized():
        dist.broadcast_object_list(outcome, src=0)
    value, problem = outcome[0]
    if problem is not None:
        raise UserError(problem)
    return value  # type: ignore[return-value]
