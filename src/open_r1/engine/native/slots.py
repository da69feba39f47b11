"""The state of each running completion on the device, one slot each, so that a step needs no host."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from open_r1 import devices
from open_r1.engine.drawing import uniform_streams
from open_r1.engine.native.scheduler import Rollout
from open_r1.errors import UserError

LIVE, STOPPED, FULL, FAILED = range(4)
"""Status of a slot: sampling, ended by a stop token, ended by its limit, ended by logits that are not finite."""
MAX_STOPS = 16
"""Stop tokens that a request may have."""


@dataclass
class Slots:
    """S slots and a spare one, whose status is never LIVE, for padding rows of a batch.

    `token (S + 1,)` is the input of the next step at position `length`; `sampled` counts the completion's tokens, of
    which `tokens (S + 1, W)` and `logprobs` hold those sampled since the slot was assigned. `uniforms (S + 1, W)` has
    one uniform number for each token, `block_table (S + 1, P)` the pages.
    """

    token: Tensor
    length: Tensor
    sampled: Tensor
    limit: Tensor
    status: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    stops: Tensor
    uniforms: Tensor
    tokens: Tensor
    logprobs: Tensor
    block_table: Tensor

    @classmethod
    def empty(cls, slots: int, width: int, pages: int, device: torch.device) -> "Slots":
        """`slots` slots for completions of at most `width` tokens on at most `pages` pages."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(slots + 1, *shape, dtype=dtype, device=device)

        numbers = {name: zeros() for name in ("length", "sampled", "limit", "top_k")}
        shares = {name: zeros(dtype=torch.float32) for name in ("temperature", "top_p", "min_p")}
        return cls(
            token=zeros(dtype=torch.int64),
            status=zeros() + FULL,
            stops=zeros(MAX_STOPS) - 1,
            uniforms=zeros(width, dtype=torch.float32),
            tokens=zeros(width),
            logprobs=zeros(width, dtype=torch.float32),
            block_table=zeros(pages),
            **numbers,
            **shares,
        )

    def admit(self, rollouts: Sequence[Rollout]) -> None:
        """Initializes the slots of newly admitted completions (except their pages)."""
        samplings = [r.group.sampling for r in rollouts]
        columns: dict[str, list] = {
            "token": [r.known[-1] for r in rollouts],
            "length": [len(r.known) - 1 for r in rollouts],
            "sampled": [len(r.tokens) for r in rollouts],
            "limit": [r.limit for r in rollouts],
            "status": [LIVE] * len(rollouts),
            "temperature": [s.temperature for s in samplings],
            "top_k": [s.top_k for s in samplings],
            "top_p": [s.top_p for s in samplings],
            "min_p": [s.min_p for s in samplings],
            "stops": [[*s.stop_token_ids, *[-1] * (MAX_STOPS - len(s.stop_token_ids))] for s in samplings],
        }
        where = to_device([r.slot for r in rollouts], torch.int64, self.token.device)
        for name, values in columns.items():
            column = getattr(self, name)
            column[where] = to_device(values, column.dtype, column.device)
        width = max(r.limit for r in rollouts)
        noise = np.zeros((len(rollouts), width), dtype=np.float32)
        streams = uniform_streams((r.group.sampling.seed, r.index, r.limit) for r in rollouts)
        for row, stream in zip(noise, streams, strict=True):
            row[: len(stream)] = stream
        self.uniforms[where, :width] = to_device(noise, torch.float32, self.uniforms.device)

    def set_pages(self, rollouts: Sequence[Rollout]) -> None:
        """Writes the pages of `rollouts` into the block table. A row that has ended keeps storing one token after its
        last, so its pages must be followed by the scratch page."""
        width = min(max(len(r.pages) for r in rollouts) + 1, self.block_table.shape[1])
        table = np.zeros((len(rollouts), width), dtype=np.int32)
        for row, r in zip(table, rollouts, strict=True):
            row[: len(r.pages)] = r.pages
        where = to_device([r.slot for r in rollouts], torch.int64, self.block_table.device)
        self.block_table[where, :width] = to_device(table, torch.int32, self.block_table.device)
        for r in rollouts:
            r.sent = len(r.pages)

    def read(self, slots: Sequence[int], width: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `width` tokens and logprobs of each of `slots`, copied to the host."""
        where = to_device(slots, torch.int64, self.tokens.device)
        return self.tokens[where, :width].cpu().numpy(), self.logprobs[where, :width].cpu().numpy()


def to_device(values: Sequence | np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor on `device`, copied without synchronizing."""
    return devices.to_device(torch.from_numpy(np.asarray(values)).to(dtype), device)


def check_stops(stops: Sequence[int]) -> None:
    """Raises UserError if a request has more stop tokens than a slot holds."""
    if len(stops) > MAX_STOPS:
        raise UserError(f"stop_token_ids has {len(stops)} tokens: the native engine takes up to {MAX_STOPS}.")
