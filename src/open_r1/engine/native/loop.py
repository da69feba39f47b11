"""The loop that keeps the device busy: admit, launch some steps, and meanwhile look how the steps before them went."""

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
"""Steps between two looks at which completions have ended."""


class Look(NamedTuple):
    """Status and tokens written of every slot after some steps, on their way to the host, and who had which slot."""

    rollouts: list[tuple[Rollout, int]]
    status: Tensor
    written: Tensor
    event: Any


class Ended(NamedTuple):
    """A completion that has ended, and whether its last token is a stop token, or its logits were no numbers."""

    rollout: Rollout
    stopped: bool
    failed: bool


class Loop:
    """Takes groups of completions through the decoder, `turn` by `turn`; `take` gives those that are finished."""

    def __init__(self, decoder: Decoder, scheduler: Scheduler, tokenizer: PreTrainedTokenizerBase) -> None:
        self.decoder, self.scheduler, self.tokenizer = decoder, scheduler, tokenizer
        self.version = 0
        self.on_tokens: Callable[[int], None] | None = None
        self.on_completion: Callable[[Hashable, Completion], None] | None = None
        self.failures = 0
        self._looks: deque[Look] = deque()
        self._texts: deque[tuple[list[Ended], Future]] = deque()
        self._finished: deque[Group] = deque()
        self._thread = ThreadPoolExecutor(1, "text")
        cuda = decoder.model.device.type == "cuda"
        self._lag = 1 if cuda else 0  # looks that wait while newer steps run
        self._copies: Any = torch.cuda.Stream() if cuda else None

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self.scheduler.waiting or self.scheduler.running or self._texts or self._finished)

    @property
    def has_room(self) -> bool:
        """Whether to read more requests: enough wait already where as many wait as can run."""
        return len(self.scheduler.waiting) < self.scheduler.slots

    def add(self, id: Hashable, prompt: list[int], sampling: Sampling, limit: int) -> None:
        """Has a group wait for its turn. Completions of no tokens are finished at once."""
        group = Group(id, prompt, sampling)
        if limit < 1:
            empty = Completion("", [], [] if sampling.logprobs else None, "length", self.version)
            group.done = dict.fromkeys(range(sampling.n), empty)
            self._finished.append(group)
            return
        self.scheduler.waiting.extend(Rollout(group, i, limit) for i in range(sampling.n))

    def turn(self) -> None:
        """Launches the next steps, and looks at those before."""
        self._admit()
        launched = self._launch()
        while len(self._looks) > (self._lag if launched else 0):
            self._look()
        self._collect(wait=not launched)

    def take(self) -> list[tuple[Hashable, list[Completion]]]:
        """Groups that were finished since the last call."""
        groups, self._finished = self._finished, deque()
        return [(g.id, [g.done[i] for i in range(g.sampling.n)]) for g in groups]

    def clear(self) -> None:
        """Forgets what is under way."""
        self.scheduler.clear()
        self._looks.clear()
        self._texts.clear()
        self._finished.clear()

    def close(self) -> None:
        """Ends the thread that makes texts."""
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
        """Launches up to `STEPS` steps of all who run; False if nobody does."""
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
        self._looks.append(self._snapshot(rollouts))
        return True

    def _make_room(self) -> None:
        """Finds pages: those of completions that have ended meanwhile, else those of the youngest, which starts over
        from what it has written."""
        before = len(self.scheduler.running)
        while self._looks:
            self._look()
        if len(self.scheduler.running) == before:
            youngest = self.scheduler.running[-1]
            written = np.asarray([int(self.decoder.slots.written[youngest.slot])])
            self._read([youngest], written)
            self.scheduler.preempt(youngest)

    def _snapshot(self, rollouts: Sequence[Rollout]) -> Look:
        slots = self.decoder.slots
        event = None
        if self._copies is None:
            status, written = slots.status.clone(), slots.written.clone()
        else:
            status, written = (
                torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in (slots.status, slots.written)
            )
            status.copy_(slots.status, non_blocking=True)
            written.copy_(slots.written, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        return Look([(r, r.slot) for r in rollouts], status, written, event)

    def _look(self) -> None:
        """Retires those who had ended when the oldest look was taken."""
        look = self._looks.popleft()
        if look.event is not None:
            look.event.synchronize()
        status, written = look.status.numpy(), look.written.numpy()
        running = [(r, slot) for r, slot in look.rollouts if r.slot == slot]
        if self.on_tokens is not None:
            self.on_tokens(sum(int(written[slot]) - r.seen for r, slot in running))
            for r, slot in running:
                r.seen = int(written[slot])
        if ended := [r for r, slot in running if status[slot] != LIVE]:
            states = [status[r.slot] for r in ended]
            self._read(ended, np.asarray([written[r.slot] for r in ended]))
            self.scheduler.retire(ended)
            done = [Ended(r, s == STOPPED, s == FAILED) for r, s in zip(ended, states, strict=True)]
            self.failures += sum(e.failed for e in done)
            self._texts.append((done, self._thread.submit(texts_of, self.tokenizer, done)))

    def _read(self, rollouts: Sequence[Rollout], written: np.ndarray) -> None:
        """Gets the tokens that `rollouts` have written, without waiting for steps launched meanwhile: they write
        nothing into slots that have ended."""
        with torch.cuda.stream(self._copies):
            rows = self.decoder.slots.read([r.slot for r in rollouts], int(written.max()))
        for r, count, tokens, logprobs in zip(rollouts, written, *rows, strict=True):
            start = len(r.tokens)
            r.tokens += tokens[start:count].tolist()
            r.logprobs += logprobs[start:count].tolist()

    def _collect(self, wait: bool) -> None:
        """Makes completions of those whose text is ready."""
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
    """Texts without special tokens and without the token that stopped them: all at once, in tokenizers' own threads,
    where the tokenizer allows."""
    rows = [e.rollout.tokens[: len(e.rollout.tokens) - e.stopped] for e in ended]
    if tokenizer.is_fast and not tokenizer.clean_up_tokenization_spaces:
        return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
    return tokenizer.batch_decode(rows, skip_special_tokens=True)
