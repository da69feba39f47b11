"""Problems to requests, completions to graded rows, rows to shards."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from open_r1.engine.choose import OpenEngine
from open_r1.engine.protocol import Request, Sampling, request_seed, token_count
from open_r1.errors import UserError
from open_r1.generation.problems import Problem, Problems, prompt_bytes
from open_r1.generation.store import COMPLETION, GENERATED, PROMPT, VERDICT, Row, ShardStore
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict, grade_many
from open_r1.rewards.text import prefill_of

FAILURES = 100
"""Requests in a row that fail before the run stops."""
LAYOUTS = ("messages", "conversations")
"""Columns of the source that fine-tuning would take for the answers."""


class Generation:
    """One run: what `store` lacks is generated for the rows `indices` of `problems`.

    `sampling.n` completions a problem, each of at most `sampling.max_tokens` tokens; `rows_per_shard` rows make a
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
        self.failures: list[str] = []
        self._grader = ThreadPoolExecutor(2, thread_name_prefix="grading")
        self._verdicts: dict[tuple[int, int], Future[Verdict]] = {}

    def run(self, longest: int, console: Console) -> None:
        """Generates until every row is there; `longest` bytes has the longest prompt. Raises `UserError`."""
        try:
            self._run(longest, console)
        finally:
            self._grader.shutdown(cancel_futures=True)
            self.store.close()
        if self.failures:
            raise UserError(f"{len(self.failures)} requests failed, the first thus: {self.failures[0]}. {self._kept()}")

    def _run(self, longest: int, console: Console) -> None:
        self._check_lengths(longest)
        done = int(self.store.done[self.indices].sum())
        total = (len(self.indices) - len(self.too_long)) * self.sampling.n
        if done < total:
            self._start()
        with SamplingProgress("generate", total, done, 0, console, graded=0) as progress:
            pending = self.store.pending
            golds = {p.index: p.gold for p in self.problems.read(sorted({row["index"] for row in pending}))}
            for row in pending:
                self._grade(row, golds[row["index"]], progress)
            if done < total:
                self.engine.watch(progress.add_tokens)
                self._generate(progress)
            self._write()

    def _start(self) -> None:
        """Before the clock runs that tokens a second and the time left are told by."""
        try:
            self.engine.start()
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}. {self._kept()}") from error

    def _generate(self, progress: SamplingProgress) -> None:
        asked: dict[tuple[int, int], Problem] = {}
        since, in_a_row = time.monotonic(), 0
        try:
            for key, completions in self.engine.engine.stream(self._requests(asked)):
                problem = asked.pop(key)  # type: ignore[call-overload]
                index, first = problem.index, key[1]  # type: ignore[index]
                rows = []
                for i, completion in enumerate(completions):
                    if completion.finish_reason == "error":
                        self.failures.append(completion.text)
                        in_a_row += 1
                        continue
                    in_a_row = 0
                    rows.append(
                        {
                            "index": index,
                            "sample": first + i,
                            "completion": completion.text,
                            "n_tokens": token_count(completion),
                            "finish_reason": completion.finish_reason,
                            "seed": request_seed(self.sampling.seed, index, first),
                        }
                    )
                if in_a_row >= FAILURES:
                    raise UserError(f"{in_a_row} requests in a row failed, the last thus: {self.failures[-1]}")
                rows = [row for row in rows if not self.store.done[index, row["sample"]]]
                if rows:
                    now = time.monotonic()
                    self.store.append(rows, now - since)
                    since = now
                for row in rows:
                    self._grade(row, problem.gold, progress)
                progress.add_finished(len(rows))
                if len(self.store.pending) >= self.rows_per_shard:
                    self._write()
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}. {self._kept()}") from error
        except RuntimeError as error:  # what torch raises, out of memory among it
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"the engine stopped: {reason.rstrip('.')}. {self._kept()}") from error

    def _requests(self, asked: dict[tuple[int, int], Problem]) -> Iterator[Request]:
        """What is missing, as the engine has room for it."""
        missing = [index for index in self.indices if not self.store.done[index].all()]
        for problem in self.problems.read(missing):
            prompt = self.engine.render(problem.messages)
            room = self.engine.room(prompt, self.sampling.max_tokens)
            if problem.index in self.too_long or self._is_too_long(problem, room):
                continue
            for first, count in self._parts(problem.index, prompt, room):
                asked[problem.index, first] = problem
                sampling = Sampling(
                    n=count,
                    temperature=self.sampling.temperature,
                    top_p=self.sampling.top_p,
                    max_tokens=room,
                    stop_token_ids=self.engine.stop_token_ids,
                    seed=request_seed(self.sampling.seed, problem.index, first),
                    logprobs=False,
                )
                yield Request((problem.index, first), prompt, sampling)

    def _parts(self, index: int, prompt: Any, room: int) -> Iterator[tuple[int, int]]:
        """Missing samples as `(first, count)`: each a request of its own, or those that share a batch together."""
        missing = np.flatnonzero(~self.store.done[index]).tolist()
        budget = self.engine.max_tokens_per_batch
        most = 1 if budget is None else max(1, budget // (self.engine.prompt_tokens(prompt) + room))
        while missing:
            run = 1
            while run < min(most, len(missing)) and missing[run] == missing[0] + run:
                run += 1
            yield missing[0], run
            missing = missing[run:]

    def _check_lengths(self, longest: int) -> None:
        """Finds prompts beyond the context before anything is generated, and tells the engine how long requests get."""
        context = self.engine.context
        if context is not None and longest > context:  # a token has a byte or more
            for problem in self.problems.read(self.indices):
                if prompt_bytes(problem) > context:
                    self._is_too_long(problem, self.engine.room(self.engine.render(problem.messages), 1))
        bound = longest + 512 + self.sampling.max_tokens  # the chat template's own text
        self.engine.reserve(bound if context is None else min(bound, context))

    def _is_too_long(self, problem: Problem, room: int) -> bool:
        if room >= 1:
            return False
        if not self.skip_long:
            raise UserError(
                f"{self.problems.place(problem.index)}: the prompt does not fit the model's context of "
                f"{self.engine.context:,} tokens: take it out, or leave such problems out with --skip-long-prompts."
            )
        self.too_long.add(problem.index)
        return True

    def _grade(self, row: Row, gold: str, progress: SamplingProgress) -> None:
        def grade() -> Verdict:
            if not self.problems.has_golds:
                verdict = Verdict(None, None, "the dataset has no right answers")
            else:
                verdict = grade_many(completions=[self._prefill + row["completion"]], golds=[gold])[0]
            progress.add_graded(1, int(verdict.correct is True))
            return verdict

        self._verdicts[row["index"], row["sample"]] = self._grader.submit(grade)

    def _write(self) -> None:
        """The pending rows as a shard."""
        rows = sorted(self.store.pending, key=lambda row: (row["index"], row["sample"]))
        if rows:
            verdicts = [self._verdicts.pop((row["index"], row["sample"])).result() for row in rows]
            self.store.write_shard(shard_table(self.problems, rows, verdicts))

    def _kept(self) -> str:
        return (
            f"{int(self.store.done.sum())} finished rows are kept in {self.store.folder}; the same command continues."
        )


def shard_table(problems: Problems, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> pa.Table:
    """`rows` with their verdicts, behind all columns of the source; where names clash, ours stay."""
    indices = [row["index"] for row in rows]
    source = problems.table(indices)
    known = {problem.index: problem for problem in problems.read(sorted(set(indices)))}
    ours: dict[str, pa.Array] = {}
    if "problem" not in source.column_names:
        ours["problem"] = pa.array([known[i].text for i in indices], pa.string())
    if problems.answer_column not in (None, "answer"):
        ours["answer"] = pa.array([known[i].gold for i in indices], pa.string())
    ours[PROMPT.name] = pa.array([known[i].messages for i in indices], PROMPT.type)
    for field in COMPLETION:
        ours[field.name] = pa.array([row[field.name] for row in rows], field.type)
    for field in VERDICT:
        ours[field.name] = pa.array([getattr(verdict, field.name) for verdict in verdicts], field.type)
    kept = [name for name in source.column_names if name not in {*ours, *GENERATED, *LAYOUTS}]
    return pa.table({**{name: source[name] for name in kept}, **ours})
