"""Runs a benchmark: requests to an engine, completions to graded samples, samples to results.

Preparing a benchmark finds everything that cannot work; running it continues what is there. A resumed run decodes an
unfinished batch as a whole again and keeps the samples that were missing, so that it ends like an uninterrupted one.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.engine.choose import OpenEngine
from open_r1.engine.protocol import Completion, Request, Sampling
from open_r1.errors import UserError
from open_r1.evaluation.grading import SampleWriter
from open_r1.evaluation.plan import Ask, blocks, cut_short, plan
from open_r1.evaluation.protocol import Protocol
from open_r1.evaluation.results import reported_figures, summarise
from open_r1.evaluation.store import SampleStore, read_results, read_samples
from open_r1.evaluation.tasks import Problem, Task, digest
from open_r1.report.sampling_progress import SamplingProgress


@dataclass
class Benchmark:
    """A task that is ready to run: its requests, and the samples that are there already."""

    task: Task
    model: str
    engine: OpenEngine
    protocol: Protocol
    asks: list[Ask]
    store: SampleStore
    settings: dict[str, Any]
    ks: Sequence[int] = ()

    @property
    def total(self) -> int:
        """Samples when all are there."""
        return self.settings["n_problems"] * self.protocol.num_samples

    @property
    def longest(self) -> int:
        """Tokens of the longest request that may still be made, prompt and completion together; 0: none."""
        if len(self.store.rows) >= self.total:
            return 0
        return max(ask.prompt_tokens + ask.max_tokens for ask in self.asks)


def prepare(
    task: Task,
    problems: Sequence[Problem],
    model: str,
    engine: OpenEngine,
    protocol: Protocol,
    folder: Path,
    *,
    ks: Sequence[int] = (),
    console: Console | None = None,
) -> Benchmark:
    """Plans the requests and opens `folder`. Raises `UserError` for all that could not work."""
    if ks and max(ks) > protocol.num_samples:
        raise UserError(f"k is {max(ks)}, but there are {protocol.num_samples} samples a problem: raise --num-samples.")
    asks = plan(problems, engine, protocol)
    note = cut_short(asks, engine, protocol)
    if note:
        (console or Console()).print(f"{task.name}: {note}", soft_wrap=True, highlight=False, markup=False)
    settings = {
        "task": task.name,
        "model": None if engine.identity.get("weights") else model,
        "engine": engine.name,
        **engine.identity,
        "protocol": {
            **asdict(protocol),
            "prompt": task.prompt,
            "stop_token_ids": list(engine.stop_token_ids),
            "longest_completion": min(ask.max_tokens for ask in asks),
            **task.recorded,
        },
        "n_problems": len(problems),
        "data": digest(problems),
    }
    return Benchmark(task, model, engine, protocol, asks, SampleStore(folder, settings), settings, ks)


def run_benchmark(benchmark: Benchmark, console: Console | None = None) -> dict[str, Any]:
    """Samples what is missing, and writes and returns the results. Raises `UserError`."""
    task, engine, store, total = benchmark.task, benchmark.engine, benchmark.store, benchmark.total
    right = sum(row["correct"] is True for row in store.rows.values())
    if len(store.rows) < total:
        _start(benchmark)
        with SamplingProgress(task.name, total, len(store.rows), right, console or Console()) as progress:
            engine.watch(progress.add_tokens)
            _sample(benchmark, progress)
    results = {
        "task": task.name,
        "model": benchmark.model,
        "engine": engine.name,
        "protocol": {**benchmark.settings["protocol"], **engine.identity, "data": benchmark.settings["data"]},
        **summarise([store.rows[key] for key in sorted(store.rows)], benchmark.ks),
        "seconds": round(store.seconds, 3),
        "reported": reported_figures(benchmark.model, task.name),
    }
    store.finish(results)
    return results


def evaluate_task(
    task: Task,
    problems: Sequence[Problem],
    model: str,
    engine: OpenEngine,
    protocol: Protocol,
    folder: Path,
    *,
    ks: Sequence[int] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """`prepare` and `run_benchmark` for one task."""
    benchmark = prepare(task, problems, model, engine, protocol, folder, ks=ks, console=console)
    engine.reserve(benchmark.longest)
    return run_benchmark(benchmark, console)


def merge_shares(benchmark: Benchmark, shares: Sequence[Path]) -> dict[str, Any]:
    """The results of a benchmark whose problems were shared out, with the finished folder of each share, which is
    removed."""
    seconds = [read_results(share)["seconds"] for share in shares]
    benchmark.store.append([row for share in shares for row in read_samples(share)], max(seconds))
    results = run_benchmark(benchmark, Console(quiet=True))
    for share in shares:
        shutil.rmtree(share)
    return results


class _EngineStopped(UserError):
    """The engine is gone, or refused a request."""


def _start(benchmark: Benchmark) -> None:
    """Before the clock runs that tokens a second and the time left are told by."""
    try:
        benchmark.engine.start()
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. {_kept(benchmark.store)}") from error


def _sample(benchmark: Benchmark, progress: SamplingProgress) -> None:
    store = benchmark.store
    writer = SampleWriter(store, progress)
    try:
        with writer:
            for ask, completions in _completions(benchmark):
                writer.add(ask, completions)
    except _EngineStopped as error:
        raise UserError(f"{str(error).rstrip('.')}. {_kept(store)}") from error
    if writer.failures:
        raise UserError(
            f"{len(writer.failures)} samples failed, the first thus: {writer.failures[0].rstrip('.')}. {_kept(store)}"
        )


def _completions(benchmark: Benchmark) -> Iterator[tuple[Ask, list[Completion]]]:
    """Requests with samples that are missing, as they finish. Raises `_EngineStopped`."""
    engine, rows = benchmark.engine, benchmark.store.rows
    try:
        for block in blocks(benchmark.asks, engine.max_tokens_per_batch):
            wanting = [ask for ask in block if any(key not in rows for key in ask.keys)]
            if not wanting:
                continue
            # Numbers depend on what shares a batch: what is decoded together stays together.
            chosen = block if engine.max_tokens_per_batch is not None else wanting
            by_id: dict[Any, Ask] = {(ask.problem.index, ask.first): ask for ask in chosen}
            for key, completions in engine.engine.stream(_request(ask, benchmark) for ask in chosen):
                yield by_id[key], completions
    except UserError as error:
        raise _EngineStopped(str(error)) from error
    except RuntimeError as error:  # what torch raises, out of memory among it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _EngineStopped(f"the engine stopped: {reason}") from error


def _request(ask: Ask, benchmark: Benchmark) -> Request:
    protocol = benchmark.protocol
    sampling = Sampling(
        n=ask.count,
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        max_tokens=ask.max_tokens,
        stop_token_ids=benchmark.engine.stop_token_ids,
        seed=ask.seed,
        logprobs=False,
    )
    return Request((ask.problem.index, ask.first), ask.prompt, sampling)


def _kept(store: SampleStore) -> str:
    return f"{len(store.rows)} finished samples are kept in {store.folder}; the same command continues."
