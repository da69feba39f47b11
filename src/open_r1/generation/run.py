"""Turns problems into requests, completions into graded rows, and rows into shards."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from open_r1.data.conversations import warn_of_losses
from open_r1.data.stored import as_stored
from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import Sampling, request_seed
from open_r1.errors import UserError
from open_r1.generation.problems import Problems, PromptRow, prompt_bytes
from open_r1.generation.store import GENERATED, PROMPT, ShardStore
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict, grade_many
from open_r1.rewards.code.programs import extract_code
from open_r1.rewards.code.rewards import binary_code_reward
from open_r1.rewards.pool import default_size
from open_r1.rewards.text import prefill_of
from open_r1.sampling.journal import COMPLETION, VERDICT, Row, encodable
from open_r1.sampling.loop import SampleWriter, reporting_saved, sample
from open_r1.sampling.requests import SampleRequest, samples_per_request

LAYOUTS = ("messages", "conversations")
"""Columns of the source that fine-tuning would mistake for the answers."""
TEMPLATE_TOKENS = 512
"""Tokens for the chat template's own text in an estimate of the longest request."""


class Generation:
    """One run: generates the samples that `store` lacks for the rows `indices` of `problems`.

    `sampling.n` completions per problem, each of at most `sampling.max_tokens` tokens; `rows_per_shard` rows make a
    shard. Problems whose prompt does not fit the context raise `UserError`, or are left out with `skip_long`.
    """

    def __init__(
        self,
        problems: Problems,
        indices: Sequence[int],
        engine: OpenEngine,
        sampling: Sampling,
        store: ShardStore,
        *,
        rows_per_shard: int = 2000,
        skip_long: bool = False,
    ) -> None:
        self.problems, self.indices, self.engine, self.sampling, self.store = problems, indices, engine, sampling, store
        self.rows_per_shard, self.skip_long = rows_per_shard, skip_long
        self.too_long: set[int] = set()
        self._prefill = prefill_of(engine.answer_start)

    def run(self, longest: int, console: Console) -> None:
        """Generates until every row is complete; `longest` is the longest prompt in bytes. Raises `UserError`."""
        try:
            with reporting_saved(self.store):
                self._run(longest, console)
        finally:
            self.store.close()

    def _run(self, longest: int, console: Console) -> None:
        self._check_lengths(longest)
        done = int(self.store.done[self.indices].sum())
        total = (len(self.indices) - len(self.too_long)) * self.sampling.n
        sampling = Sampling(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            stop_token_ids=self.engine.stop_token_ids,
        )
        if done < total:
            self.engine.start(sampling)  # before the clock starts
        with SamplingProgress("generate", total, done, 0, console, graded=0) as progress:
            writer = SampleWriter(
                self.store, self._judge, progress, room=self._room_in_shard, make_room=self._write_shard
            )
            pending = self.store.pending
            known = {p.index: p for p in self.problems.read(sorted({row["index"] for row in pending}))}
            writer.grade([(known[row["index"]], row) for row in pending])
            if done < total:
                self.engine.watch(progress.add_tokens)
                with writer:
                    sample(self.engine, self._requests(), sampling, writer)
            self._write_shard()
        warn_of_losses(self.problems.source, self.engine.lost, len(self.indices), "prompts")
        if writer.failures:
            raise UserError(f"{len(writer.failures)} requests failed, the first one with: {writer.failures[0]}")

    def _requests(self) -> Iterator[SampleRequest]:
        """Requests for missing samples, created as the engine has room."""
        missing = [index for index in self.indices if not self.store.done[index].all()]
        for problem in self.problems.read(missing):
            prompt = self.engine.render(problem.conversation, self.problems.location(problem.index))
            room = self.engine.room(prompt, self.sampling.max_tokens)
            if problem.index in self.too_long or self._is_too_long(problem, room):
                continue
            length = self.engine.prompt_tokens(prompt)
            for first, count in self._runs_of_missing(problem.index, samples_per_request(self.engine, length + room)):
                seed = request_seed(self.sampling.seed, problem.index, first)
                yield SampleRequest(problem, first, count, prompt, length, room, seed)

    def _runs_of_missing(self, index: int, most: int) -> Iterator[tuple[int, int]]:
        """Missing samples of a problem as `(first, count)`, `count` at most `most`."""
        missing = np.flatnonzero(~self.store.done[index]).tolist()
        while missing:
            run = 1
            while run < min(most, len(missing)) and missing[run] == missing[0] + run:
                run += 1
            yield missing[0], run
            missing = missing[run:]

    def _check_lengths(self, longest: int) -> None:
        """Finds prompts that exceed the context before anything is generated, and announces the longest request."""
        context = self.engine.context
        if context is not None and longest > context:  # a token has a byte or more
            for problem in self.problems.read(self.indices):
                if prompt_bytes(problem) > context:
                    self._is_too_long(problem, self.engine.room(self.engine.render(problem.conversation), 1))
        bound = longest + TEMPLATE_TOKENS + self.sampling.max_tokens
        self.engine.reserve(bound if context is None else min(bound, context))

    def _is_too_long(self, problem: PromptRow, room: int) -> bool:
        if room >= 1:
            return False
        if not self.skip_long:
            raise UserError(
                f"{self.problems.location(problem.index)}: the prompt does not fit the model's context of "
                f"{self.engine.context:,} tokens: remove it, or give --skip-long-prompts."
            )
        self.too_long.add(problem.index)
        return True

    def _judge(self, answers: Sequence[tuple[Any, str]]) -> list[Verdict]:
        if self.problems.has_tests:
            return judge_programs([(problem.tests, self._prefill + text) for problem, text in answers])
        if not self.problems.has_golds:
            return [Verdict(None, None, "the dataset has no right answers")] * len(answers)
        texts = [self._prefill + text for _, text in answers]
        return grade_many(completions=texts, golds=[problem.gold for problem, _ in answers])

    def _room_in_shard(self) -> int:
        return self.rows_per_shard - len(self.store.pending)

    def _write_shard(self) -> None:
        """The pending rows as a shard."""
        rows = sorted(self.store.pending, key=lambda row: (row["index"], row["sample"]))
        if rows:
            self.store.write_shard(shard_table(self.problems, rows))


def judge_programs(answers: Sequence[tuple[Any, str]]) -> list[Verdict]:
    """Verdicts on completions by the tests of their rows: right is a program that passes them all."""
    tests, texts = [tests for tests, _ in answers], [text for _, text in answers]
    shares = binary_code_reward(texts, tests, num_parallel=default_size())
    verdicts = []
    for share, text, info in zip(shares, texts, tests, strict=True):
        if share is None:
            verdicts.append(Verdict(None, None, "the row has no tests that run here"))
            continue
        info = json.loads(info) if isinstance(info, str) else info
        source = extract_code(text, info.get("language") or "python") or None
        verdicts.append(Verdict(share == 1.0, source, "all tests pass" if share == 1.0 else "a test fails"))
    return verdicts


def shard_table(problems: Problems, rows: Sequence[Row]) -> pa.Table:
    """All columns of the source, then those of the graded `rows`, which win where names clash."""
    indices = [row["index"] for row in rows]
    source = problems.table(indices)
    known = {problem.index: problem for problem in problems.read(sorted(set(indices)))}
    ours: dict[str, pa.Array] = {}
    if "problem" not in source.column_names:
        ours["problem"] = pa.array([known[i].text for i in indices], pa.string())
    if problems.answer_path not in (None, "answer"):
        ours["answer"] = pa.array([known[i].gold for i in indices], pa.string())
    kind = problems.message_type
    ours[PROMPT] = pa.array([as_stored(known[i].conversation.messages, kind) for i in indices], kind)
    fields = [*COMPLETION, *VERDICT]
    encoded = [encodable(row, [field.name for field in fields]) for row in rows]
    for field in fields:
        ours[field.name] = pa.array([row[field.name] for row in encoded], field.type)
    source_names = [name for name in source.column_names if name not in {*ours, *GENERATED, *LAYOUTS}]
    return pa.table({**{name: source[name] for name in source_names}, **ours})
