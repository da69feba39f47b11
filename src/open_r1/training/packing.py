"""Packing: sequences of any length are concatenated, so that no compute is spent on padding."""

import bisect
import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from open_r1.devices import to_device
from open_r1.modeling.layout import DocumentLayout, consecutive
from open_r1.modeling.sequence_parallel import SequenceGroup

NUMBERS: Mapping[type, str] = {np.bool_: "bi", np.int64: "bi", np.float32: "bif"}
"""For each type of a tensor, the kinds of numpy (bool, int, float) that it is made of."""


def tensor_of(values: Sequence[Any], dtype: type) -> Tensor:
    """A tensor of the numbers in a list, by way of numpy, which is several times as fast as `torch.tensor`.

    Raises TypeError for what is no number of that type, such as None, or a fraction among integers.
    """
    array = np.array(values)
    if array.size and array.dtype.kind not in NUMBERS[dtype]:
        raise TypeError(f"expected numbers of type {dtype.__name__}, found {array.dtype}")
    return torch.from_numpy(array.astype(dtype, copy=False))


@dataclass
class TokenFields:
    """What a loss knows about each learned token. Each field is `(M,)`, or None if the loss does not use it."""

    weight: Tensor | None = None
    """Weight of the token's loss in the loss of the step."""
    advantage: Tensor | None = None
    sampler_logprobs: Tensor | None = None
    """Logprobs under the distribution from which the engine sampled."""
    old_logprobs: Tensor | None = None
    """Logprobs of the policy at the beginning of the round. None on fresh rollouts: the current policy's, detached."""
    ref_logprobs: Tensor | None = None
    """Logprobs of the frozen initial policy."""
    experts: Tensor | None = None
    """Numbers of the experts that predicted the token when it was sampled."""

    @staticmethod
    def concatenate(parts: Sequence["TokenFields"], device: torch.device | str) -> "TokenFields":
        """The fields of several sequences, end to end. Raises ValueError for a field that only some of them have."""
        joined = TokenFields()
        for name in (f.name for f in dataclasses.fields(TokenFields)):
            values = [value for part in parts if (value := getattr(part, name)) is not None]
            if values and len(values) < len(parts):
                raise ValueError(f"{name}: {len(values)} of {len(parts)} sequences in a pack have it")
            if values:
                setattr(joined, name, to_device(np.concatenate([value.numpy() for value in values]), device))
        return joined


@dataclass
class TokenSequence:
    """One document to learn from.

    `input_ids (L,)` are its tokens. `learn (L,)` marks the tokens to learn (never the first, which nothing predicts).
    `fields` has values for the marked tokens, in order: `(learn.sum(),)` each. Sequences of the same `group` begin with
    the same `shared` tokens, a prompt, of which none is learned.
    """

    input_ids: Tensor
    learn: Tensor
    fields: TokenFields = field(default_factory=TokenFields)
    group: int | None = None
    shared: int = 0

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint: only tensors and numbers."""
        fields = {name: value for name, value in vars(self.fields).items() if value is not None}
        return vars(self) | {"fields": fields}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "TokenSequence":
        """Restores what `state` returned."""
        return TokenSequence(**{**state, "fields": TokenFields(**state["fields"])})

    def __len__(self) -> int:
        return self.input_ids.numel()


@dataclass
class Pack:
    """One micro-batch: T tokens, of which M predict a token to be learned, of `num_sequences` sequences.

    `input_ids (1, T)`, `position_ids (1, T)` (from 0 in each sequence), `layout` (which tokens see which),
    `predictors (M,)` (positions whose hidden state predicts), `targets (M,)` (the tokens they predict), `sequence
    (M,)` (which sequence each target belongs to), `fields` (of each target). A prompt that several sequences share
    occurs once, so T may be less than the sum of their lengths.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: DocumentLayout
    predictors: Tensor
    targets: Tensor
    sequence: Tensor
    num_sequences: int
    fields: TokenFields

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]


def no_sides(length: int) -> None:
    """Sequences of any lengths may share a pack."""


def plan_packs(
    sequences: Sequence[TokenSequence],
    budget: int,
    share: bool = True,
    side: Callable[[int], Hashable] = no_sides,
) -> list[list[int]]:
    """Indices of `sequences` for each pack of at most `budget` tokens, deterministic.

    With `share`, sequences of a group go into the same pack, where their prompt counts once. A group that does not fit
    into one pack is split, and each part has the prompt. A sequence longer than `budget` gets its own pack. Only
    sequences whose lengths have the same `side` share a pack.
    """
    sides: dict[Hashable, list[list[int]]] = {}
    for members in _groups(sequences, share, side):
        sides.setdefault(side(len(sequences[members[0]])), []).extend(_parts(sequences, members, budget))
    plan = []
    for items in sides.values():
        bins = best_fit([_packed_length(sequences, item) for item in items], budget)
        plan += [[i for item in members for i in items[item]] for members in bins]
    return plan


def _groups(sequences: Sequence[TokenSequence], share: bool, side: Callable[[int], Hashable]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for i, s in enumerate(sequences):
        alone = s.group is None or not share
        groups.setdefault(("alone", i) if alone else ("group", s.group, side(len(s))), []).append(i)
    return list(groups.values())


def _packed_length(sequences: Sequence[TokenSequence], members: Sequence[int]) -> int:
    shared = sequences[members[0]].shared if len(members) > 1 else 0
    return sum(len(sequences[i]) for i in members) - shared * (len(members) - 1)


def _parts(sequences: Sequence[TokenSequence], members: list[int], budget: int) -> list[list[int]]:
    if _packed_length(sequences, members) <= budget:
        return [members]
    shared = sequences[members[0]].shared
    bins = best_fit([len(sequences[i]) - shared for i in members], max(budget - shared, 1))
    return [[members[i] for i in part] for part in bins]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` grouped into bins of at most `capacity`, by best-fit decreasing.

    An item longer than `capacity` gets its own bin. Items of equal length keep their order, so the result is
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


def build_pack(
    sequences: Sequence[TokenSequence],
    device: torch.device | str = "cpu",
    share: bool = True,
    group: SequenceGroup | None = None,
) -> Pack:
    """Concatenates `sequences`. With `share`, a group's prompt occurs once, before the first sequence that continues
    it, and the layout has an index of keys, also if no prompt is shared. For a `group` of processes, a last document
    that is not learned fills the pack to a multiple of its size.

    Targets, and with them `fields`, are in the order of `sequences`. Raises ValueError if the first token of a
    sequence, or a shared one, is marked to be learned.
    """
    documents: list[np.ndarray] = []
    first_positions: list[int] = []
    parents: list[int | None] = []
    prompts: dict[int | None, tuple[int, int]] = {}  # group: its prompt's document and last position in the pack
    sharers: Counter[int | None] = Counter(s.group for s in sequences if share and s.group is not None and s.shared)
    offsets, prefixes, prompt_ends = [], [], []  # of each sequence; offsets: from its positions to those in the pack
    end = 0

    def lay(tokens: np.ndarray, first_position: int, parent: int | None) -> None:
        nonlocal end
        documents.append(tokens)
        first_positions.append(first_position)
        parents.append(parent)
        end += len(tokens)

    ids = [s.input_ids.numpy() for s in sequences]
    for s, tokens in zip(sequences, ids, strict=True):
        prefix = s.shared if sharers.get(s.group, 0) > 1 else 0
        if prefix and s.group not in prompts:
            prompts[s.group] = len(documents), end + prefix - 1
            lay(tokens[:prefix], 0, None)
        parent, prompt_end = prompts[s.group] if prefix else (None, end - 1)
        offsets.append(end - prefix)
        prefixes.append(prefix)
        prompt_ends.append(prompt_end)
        if not prefix or len(tokens) > prefix:
            lay(tokens[prefix:], prefix, parent)
    if group is not None and end % group.size:
        lay(np.zeros(-end % group.size, dtype=np.int64), 0, None)
    sizes = [len(tokens) for tokens in ids]
    learned = np.concatenate([s.learn.numpy() for s in sequences]).nonzero()[0]
    owners = np.repeat(np.arange(len(sizes)), sizes)[learned]
    positions = consecutive([0] * len(sizes), sizes)[learned]
    shared = np.array(prefixes)[owners]
    if (positions < shared.clip(min=1)).any():
        raise ValueError("the first token of a document has no prediction, and a shared prompt cannot be learned")
    before = np.array(offsets)[owners] + positions - 1
    predictors = np.where(positions == shared, np.array(prompt_ends)[owners], before)
    lengths = [len(d) for d in documents]
    return Pack(
        input_ids=to_device(np.concatenate(documents)[None], device),
        position_ids=to_device(consecutive(first_positions, lengths)[None], device),
        layout=DocumentLayout(lengths, device, parents if share else None, group),
        predictors=to_device(predictors, device),
        targets=to_device(np.concatenate(ids)[learned], device),
        sequence=to_device(owners, device),
        num_sequences=len(sequences),
        fields=TokenFields.concatenate([s.fields for s in sequences], device),
    )


def empty_pack(device: torch.device | str = "cpu", share: bool = True, group: SequenceGroup | None = None) -> Pack:
    """Two tokens with weight and advantage 0. A rank that has no more packs sends them through the model, so that all
    ranks run the same number of forward and backward passes. `share` as for the other packs."""
    sequence = TokenSequence(
        input_ids=torch.zeros(2, dtype=torch.long),
        learn=torch.tensor([False, True]),
        fields=TokenFields(weight=torch.zeros(1), advantage=torch.zeros(1)),
    )
    return build_pack([sequence], device, share, group)
