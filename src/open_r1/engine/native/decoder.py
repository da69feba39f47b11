"""One decoding step of all rows, on CUDA as one graph for each number of rows, and the prefill of prompts."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from open_r1.engine.native.attention import PromptStorage, Rows
from open_r1.engine.native.model import NativeModel
from open_r1.engine.native.pages import SCRATCH
from open_r1.engine.native.sampler import sample
from open_r1.engine.native.scheduler import Prefill, Rollout, storage
from open_r1.engine.native.slots import Slots, to_device
from open_r1.internals.torch import traced_once
from open_r1.modeling.layout import DocumentLayout

MAX_LOGITS = 2**27
"""Logits computed at once, rows times vocabulary: 512 MiB in float32."""
MAX_PREFILL_TOKENS = 16384
"""Prompt tokens of one forward pass (a longer prompt has its own)."""
SMALLEST_GRAPH = 8
"""Rows of the smallest graph."""


def graph_sizes(slots: int) -> list[int]:
    """Numbers of rows that have a graph, largest first: powers of two and one and a half times those."""
    sizes = {
        min(slots, step << i) for i in range(slots.bit_length()) for step in (SMALLEST_GRAPH, SMALLEST_GRAPH * 3 // 2)
    }
    return sorted(sizes, reverse=True)


class Decoder:
    """Runs `model` over `slots` with a cache of `pages` pages of `page_size` tokens.

    `compiler` compiles the forward method of decoder layers for decoding; None: no compilation.
    """

    def __init__(
        self, model: NativeModel, slots: int, width: int, pages: int, page_size: int, compiler: Callable | None
    ) -> None:
        self.model, self.page_size, self.compiler = model, page_size, compiler
        model.merge_linears()
        self.sizes = graph_sizes(slots)
        self.slots = Slots.empty(slots, width, -(-width // page_size), model.device)
        self.spare = slots
        self.rows = torch.full((max(self.sizes),), slots, dtype=torch.int64, device=model.device)
        self.cache = model.allocate_cache(pages, page_size)
        self.graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    @torch.no_grad()
    def prefill(self, prefills: Sequence[Prefill]) -> None:
        """Computes the keys and values of all known tokens except the last."""
        pack: list[Prefill] = []
        tokens = 0
        for prefill in [*prefills, None]:
            length = len(prefill.rollout.known) - 1 if prefill is not None else 0
            if pack and (prefill is None or tokens + length > MAX_PREFILL_TOKENS):
                self._prefill_pack(pack)
                pack, tokens = [], 0
            if prefill is not None:
                pack.append(prefill)
                tokens += length

    def _prefill_pack(self, pack: Sequence[Prefill]) -> None:
        device = self.model.device
        documents = [np.asarray(p.rollout.known[:-1]) for p in pack]
        locations = [storage(p, self.page_size) for p in pack]
        ids, pages, offsets, positions = (
            to_device(np.concatenate(parts), torch.int64, device)
            for parts in (
                documents,
                [pages for pages, _ in locations],
                [offsets for _, offsets in locations],
                [np.arange(len(d)) for d in documents],
            )
        )
        layout = DocumentLayout([len(d) for d in documents], device)
        self.model.hidden(ids, positions, storage=PromptStorage(pages, offsets), layout=layout)

    @torch.no_grad()
    def first_prefill(self) -> None:
        """A prefill into the scratch page: kernels are compiled and libraries loaded before the first prompt comes."""
        positions = torch.arange(self.page_size, device=self.model.device)
        pages = torch.full_like(positions, SCRATCH)
        layout = DocumentLayout([self.page_size], self.model.device)
        ids = torch.zeros_like(positions)
        self.model.hidden(ids, positions, storage=PromptStorage(pages, positions), layout=layout)

    @torch.no_grad()
    def copy_pages(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copies pages `(from, to)`."""
        pairs = to_device(copies, torch.int64, self.model.device)
        for part in pairs.split(256):
            self.cache[:, part[:, 1]] = self.cache[:, part[:, 0]]

    @torch.no_grad()
    def run(self, rollouts: Sequence[Rollout], steps: int, truncate: bool) -> None:
        """Launches `steps` steps of `rollouts`."""
        size = next(s for s in reversed(self.sizes) if s >= len(rollouts))
        rows = [r.slot for r in rollouts] + [self.spare] * (size - len(rollouts))
        self.rows[:size] = to_device(rows, torch.int64, self.model.device)
        self.prepare(truncate)
        if self.model.device.type != "cuda":
            with self._decoding():
                for _ in range(steps):
                    self.step(size, truncate)
            return
        for _ in range(steps):
            self.graphs[size, truncate].replay()

    def step(self, size: int, truncate: bool) -> None:
        """Samples one token for each of the first `size` rows."""
        slots, rows = self.slots, self.rows[:size]
        lengths = slots.length[rows]
        hidden = self.model.hidden(slots.token[rows], lengths.long(), rows=Rows(slots.block_table[rows], lengths))
        chunks = -(-size * self.model.vocabulary // MAX_LOGITS)
        for part, chosen in zip(hidden.chunk(chunks), rows.chunk(chunks), strict=True):
            sample(self.model.head_product(part), slots, chosen, self.model.rule, truncate)

    def prepare(self, truncate: bool) -> None:
        """Captures the graphs of steps with or without truncation, unless they exist or the device has no graphs."""
        if self.model.device.type == "cuda" and (self.sizes[0], truncate) not in self.graphs:
            self.first_prefill()
            self.capture(truncate)

    def capture(self, truncate: bool) -> None:
        """Captures a graph for every number of rows, the largest first, whose memory pool the others share. All rows
        use the spare slot meanwhile."""
        saved = self.rows.clone()
        self.rows.fill_(self.spare)
        stream = torch.cuda.Stream()
        with torch.no_grad(), self._decoding():
            for size in self.sizes:
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    self.step(size, truncate)  # compiles, and lets libraries allocate their workspaces
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self._pool, stream=stream):
                    self.step(size, truncate)
                self._pool = self._pool or graph.pool()
                self.graphs[size, truncate] = graph
        self.rows.copy_(saved)

    @contextmanager
    def _decoding(self) -> Any:
        """A context in which decoder layers are compiled, with the number of rows as a separate symbol even if it
        equals the size of a head."""
        if self.compiler is None:
            yield
            return
        with traced_once(), self.model.layers_replaced(self.compiler):
            yield
