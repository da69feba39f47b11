"""Pages of the key-value cache: who holds which, counted, so that completions can share their prompt's."""

from collections import Counter
from collections.abc import Sequence

SCRATCH = 0
"""The page that rows without a completion write to; nobody is given it."""


class PagePool:
    """Pages `1 .. count - 1`. A page is free again when everybody who holds it has released it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, SCRATCH, -1))
        self._holders: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def total(self) -> int:
        """Pages that can be given out."""
        return self.count - 1

    def take(self, count: int) -> list[int]:
        """`count` free pages, each with one holder."""
        if count > self.free:
            raise ValueError(f"{count} pages asked for, {self.free} are free")
        pages = [self._free.pop() for _ in range(count)]
        self._holders.update(pages)
        return pages

    def share(self, pages: Sequence[int]) -> None:
        """Another holder for each of `pages`."""
        self._holders.update(pages)

    def release(self, pages: Sequence[int]) -> None:
        """One holder fewer for each of `pages`."""
        for page in pages:
            self._holders[page] -= 1
            if self._holders[page] == 0:
                del self._holders[page]
                self._free.append(page)


def pages_for(tokens: int, page_size: int) -> int:
    """Pages that `tokens` tokens fill, the last one perhaps in part."""
    return -(-tokens // page_size)
