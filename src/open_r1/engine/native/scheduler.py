"""Which completions run, in which slots and on which pages. Plain Python, without access to the device.

A running completion advances by one token per step until its limit. If it ends sooner, the loop learns so from the
device and calls `retire`.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from open_r1.engine.native.pages import SCRATCH, PagePool, pages_for
from open_r1.engine.protocol import Completion, Sampling


@dataclass(eq=False)
class Group:
    """A request: the completions of one prompt. `done` holds the finished ones. Groups with equal `key` have the same
    prompt and share its pages."""

    id: Hashable
    prompt: list[int]
    sampling: Sampling
    done: dict[int, Completion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = np.asarray(self.prompt).tobytes()


@dataclass(eq=False)
class Rollout:
    """Completion `index` of a group, of at most `limit` tokens.

    `tokens` and `logprobs` are those read from the device: sampled before it was last preempted, or later where the
    loop follows it. While it runs it has a slot, and pages for `cached` tokens: those whose keys and values are in the
    cache after all steps launched so far, and at most `end`, because nothing follows the last token. The device has
    `sent` of its pages, and `reported` of its tokens were reported as progress.
    """

    group: Group
    index: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    slot: int = -1
    pages: list[int] = field(default_factory=list)
    cached: int = 0
    sent: int = 0
    reported: int = 0

    def __post_init__(self) -> None:
        self.end = len(self.group.prompt) + self.limit - 1

    @property
    def known(self) -> list[int]:
        """Prompt and tokens sampled before the last preemption; the last one is the input of the next step."""
        return self.group.prompt + self.tokens


@dataclass
class Prefill:
    """A forward pass over the known tokens, which stores keys and values from token `first` on."""

    rollout: Rollout
    first: int


@dataclass
class Admitted:
    """What admitted completions need before their first step: prefills, then copies `(from, to)` of partly filled
    pages."""

    rollouts: list[Rollout] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)


class Scheduler:
    """Runs at most `slots` completions, on the pages of `pool`; the others wait, first come, first served."""

    def __init__(self, slots: int, pool: PagePool, page_size: int) -> None:
        self.slots, self.pool, self.page_size = slots, pool, page_size
        self.waiting: deque[Rollout] = deque()
        self.running: list[Rollout] = []
        """Oldest first."""
        self._free_slots = list(range(slots - 1, -1, -1))
        self.preemptions = 0

    def admit(self, steps: int) -> Admitted:
        """Admits waiting completions in order, as far as slots and pages allow for `steps` steps; many at a time, since
        each admission costs a prefill."""
        admitted = Admitted()
        enough = min(self.slots, 8 * len(self.waiting))
        if not self.waiting or (self.running and len(self._free_slots) * 8 < enough):
            return admitted
        headroom = sum(len(r.pages) < pages_for(r.end, self.page_size) for r in self.running)
        siblings = {r.group.key: r for r in self.running}
        while self.waiting and self._free_slots:
            rollout = self.waiting[0]
            sibling = siblings.get(rollout.group.key)
            length = len(rollout.known) - 1
            shared = sibling.pages[: (len(rollout.group.prompt) - 1) // self.page_size] if sibling else []
            total = pages_for(length, self.page_size)
            needed = pages_for(min(length + steps, rollout.end), self.page_size) - len(shared)
            if self.pool.free < needed + (headroom if self.running else 0):
                break
            self.waiting.popleft()
            self.pool.share(shared)
            rollout.pages = [*shared, *self.pool.take(total - len(shared))]
            rollout.slot, rollout.cached = self._free_slots.pop(), length
            if sibling and not rollout.tokens:
                if total > len(shared):
                    admitted.copies.append((sibling.pages[len(shared)], rollout.pages[len(shared)]))
            elif length:
                admitted.prefills.append(Prefill(rollout, len(shared) * self.page_size))
            admitted.rollouts.append(rollout)
            self.running.append(rollout)
            siblings.setdefault(rollout.group.key, rollout)
            headroom += len(rollout.pages) < pages_for(rollout.end, self.page_size)
        return admitted

    def stepping(self) -> list[Rollout]:
        """The completions in the next step: all running ones except those whose last step is already launched."""
        return [r for r in self.running if r.cached < r.end]

    def reserve(self, rollouts: Sequence[Rollout], steps: int) -> bool:
        """Gives each of `rollouts` pages for `steps` more tokens, the oldest first; False if there are too few."""
        for rollout in rollouts:
            missing = pages_for(min(rollout.cached + steps, rollout.end), self.page_size) - len(rollout.pages)
            if missing > self.pool.free:
                return False
            if missing > 0:
                rollout.pages += self.pool.take(missing)
        return True

    def advance(self, rollouts: Sequence[Rollout], steps: int) -> None:
        """Records that `steps` steps of `rollouts` were launched."""
        for rollout in rollouts:
            rollout.cached = min(rollout.cached + steps, rollout.end)

    def retire(self, rollouts: Sequence[Rollout]) -> None:
        """Frees the slots and pages of completions that have ended."""
        ended = set(rollouts)
        self.running = [r for r in self.running if r not in ended]
        for rollout in rollouts:
            self._free(rollout)

    def preempt(self, rollout: Rollout) -> None:
        """Puts a running completion at the head of the queue; its cache is lost and will be recomputed."""
        self.preemptions += 1
        self.running.remove(rollout)
        self._free(rollout)
        self.waiting.appendleft(rollout)

    def clear(self) -> None:
        """Drops all completions."""
        self.retire(list(self.running))
        self.waiting.clear()

    def _free(self, rollout: Rollout) -> None:
        self.pool.release(rollout.pages)
        self._free_slots.append(rollout.slot)
        rollout.pages, rollout.slot, rollout.cached, rollout.sent = [], -1, 0, 0


def storage(prefill: Prefill, page_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Page, and offset in it, of each token of a prefill; tokens before `first` go to the scratch page."""
    positions = np.arange(len(prefill.rollout.known) - 1)
    pages = np.asarray(prefill.rollout.pages)[positions // page_size]
    return np.where(positions < prefill.first, SCRATCH, pages), positions % page_size
