"""Finds problems that occur in a set of known problems: equal, mostly equal, or paraphrased.

There are three tests, on normalized tokens:

- A problem shorter than an n-gram matches only if all of it is the same.
- Otherwise, the share of the shorter problem's n-grams that the other one has must reach a bound. (Brown et al. 2020,
  appendix C, call one shared 13-gram an overlap. Competition problems share phrases of that length, so a single one is
  not enough here.)
- Near copies: MinHash (Broder 1997) over word pairs finds candidates. Their exact Jaccard similarity must reach a
  bound, and they must have the same numbers. So names may differ, but a variant with other numbers is another problem.
"""

import zlib
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from datasketch import MinHash, MinHashLSH

from open_r1.curation.normal_form import numbers_of, tokens_of

PERMUTATIONS = 128
RECALL = 0.9
"""Weight of missed pairs when datasketch chooses its bands. False candidates only cost time, because all are
checked."""


@dataclass(frozen=True)
class Match:
    """`key` is the known problem; `kind` is `same`, `n-grams` or `near copy`, `score` the share in common."""

    key: Hashable
    kind: str
    score: float


@dataclass(frozen=True)
class Shape:
    """A problem in the form in which problems are compared."""

    tokens: tuple[str, ...]
    ngrams: frozenset[int]
    pairs: frozenset[int]

    @property
    def minhash(self) -> MinHash:
        """The signature of its word pairs."""
        signature = MinHash(num_perm=PERMUTATIONS, hashfunc=lambda number: number)
        signature.update_batch(self.pairs)
        return signature


def shape_of(text: str, n: int) -> Shape:
    """`text` in n-grams and word pairs, each a 32-bit number."""
    tokens = tokens_of(text)
    return Shape(tuple(tokens), frozenset(_grams(tokens, n)), frozenset(_grams(tokens, 2)))


class KnownProblems:
    """An index of problems. Two problems match if they have a `share` of the shorter one's n-grams in common, or a
    Jaccard similarity of `near` (0: no search for near copies)."""

    def __init__(self, n: int = 8, share: float = 0.7, near: float = 0.5) -> None:
        self.n, self.share, self.near = n, share, near
        self._same: dict[tuple[str, ...], Hashable] = {}
        self._shapes: dict[Hashable, Shape] = {}
        self._by_ngram: dict[int, list[Hashable]] = {}
        weights = (1 - RECALL, RECALL)
        self._near = MinHashLSH(threshold=near, num_perm=PERMUTATIONS, weights=weights) if near else None

    def __len__(self) -> int:
        return len(self._shapes)

    def add(self, key: Hashable, shape: Shape) -> None:
        """Adds a known problem. `key` must be new."""
        self._shapes[key] = shape
        self._same.setdefault(shape.tokens, key)
        for ngram in shape.ngrams:
            self._by_ngram.setdefault(ngram, []).append(key)
        if self._near is not None and shape.pairs:
            self._near.insert(key, shape.minhash, check_duplication=False)

    def find(self, shape: Shape) -> Match | None:
        """The best match for `shape`, if any."""
        if not shape.tokens:
            return None
        if shape.tokens in self._same:
            return Match(self._same[shape.tokens], "same", 1.0)
        found = [*self._by_ngrams(shape), *self._near_copies(shape)]
        return max(found, key=lambda match: match.score, default=None)

    def _by_ngrams(self, shape: Shape) -> Iterator[Match]:
        common: Counter[Hashable] = Counter()
        for ngram in shape.ngrams:
            common.update(self._by_ngram.get(ngram, ()))
        for key, count in common.items():
            share = count / min(len(shape.ngrams), len(self._shapes[key].ngrams))
            if share >= self.share:
                yield Match(key, "n-grams", round(share, 3))

    def _near_copies(self, shape: Shape) -> Iterator[Match]:
        if self._near is None or not shape.pairs:
            return
        candidates: Any = self._near.query(shape.minhash)
        numbers = numbers_of(list(shape.tokens))
        for key in candidates:
            other = self._shapes[key]
            similarity = len(shape.pairs & other.pairs) / len(shape.pairs | other.pairs)
            if similarity >= self.near and numbers == numbers_of(list(other.tokens)):
                yield Match(key, "near copy", round(similarity, 3))


def _grams(tokens: list[str], n: int) -> Iterator[int]:
    for start in range(len(tokens) - n + 1):
        yield zlib.crc32(" ".join(tokens[start : start + n]).encode())
