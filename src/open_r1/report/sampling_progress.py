"""Shows the progress of sampling: a live bar on a terminal, a line every 30 seconds elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from open_r1.report.figures import clock

LINE_EVERY = 30.0
ENOUGH = 64
"""Number of finished samples needed to estimate the time left, or a twentieth of all if that is less. The first ones
finish while all others are in progress."""


class SamplingProgress:
    """Counts samples of a task: share right so far, tokens per second, time left. A context manager.

    `done` samples were there before, `right` of those `graded` (default: all of them) were right.
    """

    def __init__(
        self, task: str, total: int, done: int, right: int, console: Console, graded: int | None = None
    ) -> None:
        self.task, self.total, self.console = task, total, console
        self.done = self.before = done
        self.right, self.graded = right, done if graded is None else graded
        self.tokens = 0
        self._began = self._printed = self._moved = time.monotonic()
        self._live = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[cyan]{task.fields[news]}"),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self._bar = self._live.add_task(task, total=total, completed=done, news="")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.update(self._bar, completed=self.done, news=self.news())
        self._live.stop()
        if not self.console.is_terminal:
            self._print()

    def add_tokens(self, count: int) -> None:
        """The engine sampled `count` tokens."""
        self.tokens += count
        now = time.monotonic()
        if now - self._moved > 0.25:
            self._moved = now
            self._update()

    def add_finished(self, count: int) -> None:
        """`count` samples finished; their verdicts follow later."""
        self.done += count
        self._update()

    def add_graded(self, count: int, right: int) -> None:
        """`count` more samples were graded, and `right` of them are right."""
        self.graded += count
        self.right += right

    def news(self) -> str:
        """`31.2% right, 812 tokens/s, 3:10 left`."""
        seconds = time.monotonic() - self._began
        parts = [f"{self.right / self.graded:.1%} right"] if self.graded else []
        if self.tokens and seconds > 0:
            parts.append(f"{self.tokens / seconds:,.0f} tokens/s")
        fresh = self.done - self.before
        if self.done < self.total and fresh >= min(ENOUGH, max(1, (self.total - self.before) // 20)):
            parts.append(f"{clock(seconds / fresh * (self.total - self.done))} left")
        return ", ".join(parts)

    def _update(self) -> None:
        self._live.update(self._bar, completed=self.done, news=self.news())
        now = time.monotonic()
        if not self.console.is_terminal and now - self._printed > LINE_EVERY:
            self._printed = now
            self._print()

    def _print(self) -> None:
        line = f"{self.task}  {self.done}/{self.total} samples, {self.news()}"
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)
