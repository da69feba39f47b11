"""Packing: sequences of any length laid end to end, so that no compute is spent on padding."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from open_r1.training.attention import DocumentLayout


@dataclass
class TokenSequence:
    """One document to learn from.

    `input_ids (L,)` are its tokens, `learn (L,)` marks the tokens whose logprobs are wanted (never the first,
    which nothing predicts), and each of `fields` holds one float per marked token, in order: `(learn.sum(),)`.
    """

    input_ids: Tensor
    learn: Tensor
    fields: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass
class Pack:
    """One micro-batch: N documents of T tokens in all, M of which are to be predicted.

    `input_ids (1, T)`, `position_ids (1, T)` (from 0 in each document), `layout` (where documents begin and end),
    `predictors (M,)` (positions whose hidden state predicts), `targets (M,)` (the tokens they predict),
    `document (M,)` (which document each target belongs to), `fields` (`(M,)` each).
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: DocumentLayout
    predictors: Tensor
    targets: Tensor
    document: Tensor
    fields: dict[str, Tensor]

    @property
    def num_documents(self) -> int:
        return len(self.layout.lengths)

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` grouped into bins of at most `capacity`, by best-fit decreasing.

    An item longer than `capacity` gets a bin to itself. Items of equal length keep their order, so the result is
    deterministic. O(n log n): the open bins are found through the sorted list of their distinct free spaces.
    """
    bins: list[list[int]] = []
    by_space: dict[int, list[int]] = {}
    spaces: list[int] = []

    def put(bin_index: int, space: int) -> None:
        if space not in by_space:
            by_space[space] = []
            bisect.insort(spaces, space)
        by_space[space].append(bin_index)

    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        position = bisect.bisect_left(spaces, length)
        if position == len(spaces):
            bins.append([index])
            put(len(bins) - 1, max(capacity - length, 0))
            continue
        space = spaces[position]
        bin_index = by_space[space].pop()
        if not by_space[space]:
            del by_space[space]
            del spaces[position]
        bins[bin_index].append(index)
        put(bin_index, space - length)
    return bins


def build_pack(sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> Pack:
    """Lays `sequences` end to end. Raises ValueError if a first token is marked to be learned."""
    lengths = [len(s) for s in sequences]
    learn = torch.cat([s.learn.bool() for s in sequences])
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    if learn[starts].any():
        raise ValueError("the first token of a document has no prediction, so it cannot be learned")
    input_ids = torch.cat([s.input_ids for s in sequences])
    target_positions = learn.nonzero().squeeze(1)
    document = torch.repeat_interleave(torch.arange(len(sequences)), torch.tensor(lengths))
    names = sequences[0].fields.keys()
    return Pack(
        input_ids=input_ids[None].to(device),
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None].to(device),
        layout=DocumentLayout(lengths, device),
        predictors=(target_positions - 1).to(device),
        targets=input_ids[target_positions].to(device),
        document=document[target_positions].to(device),
        fields={name: torch.cat([s.fields[name] for s in sequences]).to(device) for name in names},
    )


def empty_pack(fields: Sequence[str], device: torch.device | str = "cpu") -> Pack:
    """Two tokens of weight zero: what a rank with nothing left to do sends through the model, so that all ranks
    run equally many forwards and backwards. Every field is 0."""
    sequence = TokenSequence(
        input_ids=torch.zeros(2, dtype=torch.long),
        learn=torch.tensor([False, True]),
        fields=dict.fromkeys(fields, torch.zeros(1)),
    )
    return build_pack([sequence], device)
