"""Pages of the key-value cache, with reference counts, so that completions can share those of their prompt."""

from collections import Counter
from collections.abc import Sequence

SCRATCH = 0
"""The page that padding rows write to; it is never allocated."""


class PagePool:
    """Pages `1 .. count - 1`. A page is free again when all its holders have released it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, SCRATCH, -1))
        self._holders: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """Number of free pages."""
        return len(self._free)

    @property
    def total(self) -> int:
        """Number of pages that can be allocated."""
        return self.count - 1

    def take(self, count: int) -> list[int]:
        """Allocates `count` free pages, each with one holder."""
        if count > self.free:
            raise ValueError(f"{count} pages requested, {self.free} are free")
        pages = [self._free.pop() for _ in range(count)]
        self._holders.update(pages)
        return pages

    def share(self, pages: Sequence[int]) -> None:
        """Adds a holder to each of `pages`."""
        self._holders.update(pages)

    def release(self, pages: Sequence[int]) -> None:
        """Removes a holder from each of `pages`."""
        for page in pages:
            self._holders[page] -= 1
            if self._holders[page] == 0:
                del self._holders[page]
                self._free.append(page)


def pages_for(tokens: int, page_size: int) -> int:
    """Number of pages for `tokens` tokens; the last may be partly filled."""
    return -(-tokens // page_size)
