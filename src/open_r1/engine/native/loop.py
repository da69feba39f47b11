"""The loop that keeps the device busy: it admits completions, launches steps, and processes the results of earlier
steps while the device runs."""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from open_r1.engine.native.decoder import Decoder
from open_r1.engine.native.scheduler import Group, Rollout, Scheduler
from open_r1.engine.native.slots import FAILED, LIVE, STOPPED
from open_r1.engine.protocol import Completion, Sampling

STEPS = 8
"""Steps between two checks of which completions have ended."""


class Snapshot(NamedTuple):
    """Status and token count of every slot after some steps, in transfer to the host, and which completion had which
    slot."""

    rollouts: list[tuple[Rollout, int]]
    status: Tensor
    sampled: Tensor
    event: Any


class Ended(NamedTuple):
    """A completion that has ended, and whether its last token is a stop token, or its logits were not finite."""

    rollout: Rollout
    stopped: bool
    failed: bool


class Loop:
    """Runs groups of completions through the decoder, `turn` by `turn`; `take` returns the finished ones."""

    def __init__(self, decoder: Decoder, scheduler: Scheduler, tokenizer: PreTrainedTokenizerBase) -> None:
        self.decoder, self.scheduler, self.tokenizer = decoder, scheduler, tokenizer
        self.version = 0
        self.on_tokens: Callable[[int], None] | None = None
        self.on_completion: Callable[[Hashable, Completion], None] | None = None
        self.follow = False
        """Read tokens as they are sampled, not only when a completion has ended."""
        self.failures = 0
        self._snapshots: deque[Snapshot] = deque()
        self._texts: deque[tuple[list[Ended], Future]] = deque()
        self._finished: deque[Group] = deque()
        self._thread = ThreadPoolExecutor(1, "text")
        cuda = decoder.model.device.type == "cuda"
        self._lag = 1 if cuda else 0  # snapshots that wait while newer steps run
        self._copies: Any = torch.cuda.Stream() if cuda else None

    @property
    def busy(self) -> bool:
        """Whether any completion is in progress."""
        return bool(self.scheduler.waiting or self.scheduler.running or self._texts or self._finished)

    @property
    def has_room(self) -> bool:
        """Whether to read more requests: not while as many wait as can run."""
        return len(self.scheduler.waiting) < self.scheduler.slots

    def add(self, id: Hashable, prompt: list[int], sampling: Sampling, limit: int) -> None:
        """Queues a group. Completions with a limit of 0 are finished at once."""
        group = Group(id, prompt, sampling)
        if limit < 1:
            empty = Completion("", [], [] if sampling.logprobs else None, "length", self.version)
            group.done = dict.fromkeys(range(sampling.n), empty)
            self._finished.append(group)
            return
        self.scheduler.waiting.extend(Rollout(group, i, limit) for i in range(sampling.n))

    def turn(self) -> None:
        """Launches the next steps and processes earlier ones."""
        self._admit()
        launched = self._launch()
        while len(self._snapshots) > (self._lag if launched else 0):
            self._process_snapshot()
        self._collect(wait=not launched)

    def take(self) -> list[tuple[Hashable, list[Completion]]]:
        """Groups that have finished since the last call."""
        groups, self._finished = self._finished, deque()
        return [(g.id, [g.done[i] for i in range(g.sampling.n)]) for g in groups]

    def clear(self) -> None:
        """Drops all completions in progress."""
        self.scheduler.clear()
        self._snapshots.clear()
        self._texts.clear()
        self._finished.clear()

    def close(self) -> None:
        """Ends the thread that decodes texts."""
        self._thread.shutdown()

    def _admit(self) -> None:
        admitted = self.scheduler.admit(STEPS)
        if not admitted.rollouts:
            return
        slots = self.decoder.slots
        self.decoder.prefill(admitted.prefills)
        if admitted.copies:
            self.decoder.copy_pages(admitted.copies)
        slots.admit(admitted.rollouts)

    def _launch(self) -> bool:
        """Launches up to `STEPS` steps of all running completions; False if there are none."""
        while rollouts := self.scheduler.stepping():
            steps = min(STEPS, max(r.end - r.cached for r in rollouts))
            if self.scheduler.reserve(rollouts, steps):
                break
            self._make_room()
        else:
            return False
        if grown := [r for r in rollouts if r.sent < len(r.pages)]:
            self.decoder.slots.set_pages(grown)
        truncate = any(r.group.sampling.truncates for r in rollouts)
        self.decoder.run(rollouts, steps, truncate)
        self.scheduler.advance(rollouts, steps)
        self._snapshots.append(self._snapshot(rollouts))
        return True

    def _make_room(self) -> None:
        """Frees the pages of completions that have ended; if there are none, those of the youngest completion, which
        will restart from its sampled tokens."""
        before = len(self.scheduler.running)
        while self._snapshots:
            self._process_snapshot()
        if len(self.scheduler.running) == before:
            youngest = self.scheduler.running[-1]
            sampled = np.asarray([int(self.decoder.slots.sampled[youngest.slot])])
            self._read([youngest], sampled)
            self.scheduler.preempt(youngest)

    def _snapshot(self, rollouts: Sequence[Rollout]) -> Snapshot:
        slots = self.decoder.slots
        event = None
        if self._copies is None:
            status, sampled = slots.status.clone(), slots.sampled.clone()
        else:
            status, sampled = (
                torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in (slots.status, slots.sampled)
            )
            status.copy_(slots.status, non_blocking=True)
            sampled.copy_(slots.sampled, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        return Snapshot([(r, r.slot) for r in rollouts], status, sampled, event)

    def _process_snapshot(self) -> None:
        """Retires the completions that had ended when the oldest snapshot was taken."""
        snapshot = self._snapshots.popleft()
        if snapshot.event is not None:
            snapshot.event.synchronize()
        status, sampled = snapshot.status.numpy(), snapshot.sampled.numpy()
        running = [(r, slot) for r, slot in snapshot.rollouts if r.slot == slot]
        if self.on_tokens is not None:
            self.on_tokens(sum(int(sampled[slot]) - r.reported for r, slot in running))
            for r, slot in running:
                r.reported = int(sampled[slot])
        ended = [r for r, slot in running if status[slot] != LIVE]
        if wanted := [r for r, _ in running] if self.follow else ended:
            self._read(wanted, np.asarray([sampled[r.slot] for r in wanted]))
        if ended:
            states = [status[r.slot] for r in ended]
            self.scheduler.retire(ended)
            done = [Ended(r, s == STOPPED, s == FAILED) for r, s in zip(ended, states, strict=True)]
            self.failures += sum(e.failed for e in done)
            self._texts.append((done, self._thread.submit(texts_of, self.tokenizer, done)))

    def _read(self, rollouts: Sequence[Rollout], sampled: np.ndarray) -> None:
        """Copies the sampled tokens of `rollouts` to the host, without waiting for later steps, which write nothing
        into slots that have ended."""
        with torch.cuda.stream(self._copies):
            rows = self.decoder.slots.read([r.slot for r in rollouts], int(sampled.max()))
        for r, count, tokens, logprobs in zip(rollouts, sampled, *rows, strict=True):
            start = len(r.tokens)
            r.tokens += tokens[start:count].tolist()
            r.logprobs += logprobs[start:count].tolist()

    def _collect(self, wait: bool) -> None:
        """Builds the completions whose text is ready."""
        while self._texts and (wait or self._texts[0][1].done()):
            done, texts = self._texts.popleft()
            for (rollout, stopped, failed), text in zip(done, texts.result(), strict=True):
                group = rollout.group
                completion = group.done[rollout.index] = Completion(
                    text=text,
                    token_ids=rollout.tokens,
                    logprobs=rollout.logprobs if group.sampling.logprobs else None,
                    finish_reason="error" if failed else "stop" if stopped else "length",
                    weights_version=self.version,
                )
                if self.on_completion is not None:
                    self.on_completion(group.id, completion)
                if len(group.done) == group.sampling.n:
                    self._finished.append(group)


def texts_of(tokenizer: PreTrainedTokenizerBase, ended: Sequence[Ended]) -> list[str]:
    """Texts without special tokens and without the stop token; decoded in one batch by the tokenizer's own threads if
    it has any."""
    rows = [e.rollout.tokens[: len(e.rollout.tokens) - e.stopped] for e in ended]
    if tokenizer.is_fast and not cleans_up(tokenizer):
        return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
    return tokenizer.batch_decode(rows, skip_special_tokens=True)


def cleans_up(tokenizer: Any) -> bool:
    """Whether transformers removes spaces before punctuation from decoded text. It does not for BPE, whatever
    `clean_up_tokenization_spaces` is, unless a second option insists."""
    if type(tokenizer.backend_tokenizer.model).__name__ == "BPE":
        insists = tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
        return bool(tokenizer.clean_up_tokenization_spaces and insists)
    return bool(tokenizer.clean_up_tokenization_spaces)
