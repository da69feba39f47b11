"""The layout of a pack: where its documents begin and end, and which tokens each attends to.

Indices are computed in numpy. Torch would spread each operation over its threads, which takes milliseconds where cores
are busy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from open_r1.devices import to_device
from open_r1.modeling.sequence_parallel import SequenceGroup

MAX_PADDING = 1.25


def consecutive(starts: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    """`starts[i], starts[i] + 1, ...`, `lengths[i]` numbers for each i, end to end."""
    counts = np.array(lengths)
    before = counts.cumsum() - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)


class DocumentLayout:
    """Where the N documents of a pack of T tokens begin and end, and what each attends to.

    A document may continue another one, its parent, which several documents can share. Its tokens then attend to all
    tokens of the parent, and causally to its own. `lengths` counts the documents' own tokens. `cu_seqlens_q (N + 1,)`
    and `cu_seqlens_k (N + 1,)` (int32), `max_q` and `max_k` are arguments of `varlen_attn`. `key_index (K,)` lists the
    tokens that are keys, document by document, parents first. Without `parents`, it is None, and each document has only
    its own tokens. A compiled layer distinguishes the two, so `parents` of None for all documents also get an index.
    `group`: the processes that share the pack, if there are several; T is then a multiple of their number.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device | str,
        parents: Sequence[int | None] | None = None,
        group: SequenceGroup | None = None,
    ) -> None:
        self.group = group
        self.lengths = list(lengths)
        self.device = device
        self.starts = np.cumsum([0, *self.lengths])
        self.parents = list(parents) if parents is not None else [None] * len(self.lengths)
        self.prefixes = [0 if p is None else self.lengths[p] for p in self.parents]
        key_lengths = [own + prefix for own, prefix in zip(self.lengths, self.prefixes, strict=True)]
        self.max_q, self.max_k = max(self.lengths), max(key_lengths)
        self.cu_seqlens_q = to_device(self.starts.astype(np.int32), device)
        self.cu_seqlens_k, self.key_index = self.cu_seqlens_q, None
        if parents is not None:
            self.cu_seqlens_k = to_device(np.cumsum([0, *key_lengths], dtype=np.int32), device)
            self.key_index = to_device(self._keys(), device)
        self._groups: tuple[list[Rectangle], Tensor] | None = None

    def tokens_of(self, i: int) -> Tensor:
        """Indices of the tokens of document i in the pack."""
        return torch.arange(int(self.starts[i]), int(self.starts[i + 1]))

    def _keys(self) -> np.ndarray:
        """Indices of the tokens that each document attends to, end to end."""
        starts = self.starts.tolist()
        of_parents = [0 if parent is None else starts[parent] for parent in self.parents]
        return consecutive(
            [start for pair in zip(of_parents, starts, strict=False) for start in pair],
            [length for pair in zip(self.prefixes, self.lengths, strict=True) for length in pair],
        )

    def padded_groups(self) -> tuple[list["Rectangle"], Tensor]:
        """Documents as rows of a few rectangles, at most a quarter of which is padding.

        Returns the rectangles, and `inverse (T,)`: the index of each token in the concatenated rectangles.
        """
        if self._groups is None:
            self._groups = _padded_groups(self)
        return self._groups


class Rectangle(NamedTuple):
    """n documents of at most L tokens, whose parents have equally many tokens: `queries (n, L)` and
    `keys (n, prefix + L)` index the tokens of a pack. Padding repeats a document's last token, which no real token
    sees."""

    queries: Tensor
    keys: Tensor
    prefix: int


def _padded_groups(layout: DocumentLayout) -> tuple[list[Rectangle], Tensor]:
    lengths, prefixes = layout.lengths, layout.prefixes
    inverse = torch.empty(sum(lengths), dtype=torch.long)
    groups: list[Rectangle] = []
    members: list[int] = []
    offset = 0

    def close() -> None:
        nonlocal offset
        width, prefix = lengths[members[0]], prefixes[members[0]]
        columns = torch.arange(width)
        ends = torch.tensor([lengths[m] for m in members])[:, None]
        index = torch.from_numpy(layout.starts[members])[:, None] + torch.minimum(columns, ends - 1)
        real = columns < ends
        inverse[index[real]] = offset + real.flatten().nonzero().squeeze(1)
        keys = index
        if prefix:
            parents = torch.stack([layout.tokens_of(p) for m in members if (p := layout.parents[m]) is not None])
            keys = torch.cat([parents, index], dim=1)
        groups.append(Rectangle(index.to(layout.device), keys.to(layout.device), prefix))
        offset += index.numel()

    real_tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: (prefixes[i], -lengths[i])):
        fits = members and prefixes[i] == prefixes[members[0]]
        if members and not (
            fits and lengths[members[0]] * (len(members) + 1) <= MAX_PADDING * (real_tokens + lengths[i])
        ):
            close()
            members, real_tokens = [], 0
        members.append(i)
        real_tokens += lengths[i]
    close()
    return groups, inverse.to(layout.device)
