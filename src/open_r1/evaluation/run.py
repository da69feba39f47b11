"""Runs a benchmark, from its problems to its results.

Preparing a benchmark finds all problems in advance. Running it continues from saved samples. A resumed run decodes an
unfinished batch again as a whole and saves only the missing samples, so that it ends like an uninterrupted one.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import Sampling
from open_r1.errors import UserError
from open_r1.evaluation.plan import cut_short, plan
from open_r1.evaluation.problems import BenchmarkProblem, Task, digest
from open_r1.evaluation.protocol import Protocol
from open_r1.evaluation.results import reported_figures, summarise
from open_r1.evaluation.store import SampleStore, read_results, read_samples
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict, grade_many
from open_r1.sampling.journal import Row
from open_r1.sampling.loop import SampleWriter, reporting_saved, sample
from open_r1.sampling.requests import SampleRequest, blocks


@dataclass
class Benchmark:
    """A task that is ready to run: its requests, and the samples that are already saved."""

    task: Task
    model: str
    engine: OpenEngine
    protocol: Protocol
    requests: list[SampleRequest]
    store: SampleStore
    settings: dict[str, Any]
    ks: Sequence[int] = ()

    @property
    def total(self) -> int:
        """Number of samples of a complete benchmark."""
        return self.settings["n_problems"] * self.protocol.num_samples

    @property
    def is_complete(self) -> bool:
        """Whether all samples are saved."""
        return len(self.store.rows) >= self.total

    @property
    def longest(self) -> int:
        """Prompt plus completion tokens of the longest remaining request; 0 if there is none."""
        if self.is_complete:
            return 0
        return max(request.prompt_tokens + request.max_tokens for request in self.requests)


def prepare(
    task: Task,
    problems: Sequence[BenchmarkProblem],
    model: str,
    engine: OpenEngine,
    protocol: Protocol,
    folder: Path,
    *,
    ks: Sequence[int] = (),
    console: Console | None = None,
) -> Benchmark:
    """Plans the requests and opens `folder`. Raises `UserError` for everything that cannot work."""
    if ks and max(ks) > protocol.num_samples:
        raise UserError(
            f"k is {max(ks)}, but there are {protocol.num_samples} samples per problem: raise --num-samples."
        )
    requests = plan(problems, engine, protocol)
    note = cut_short(requests, engine, protocol)
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
            "longest_completion": min(request.max_tokens for request in requests),
            **task.recorded,
        },
        "n_problems": len(problems),
        "data": digest(problems),
    }
    return Benchmark(task, model, engine, protocol, requests, SampleStore(folder, settings), settings, ks)


def run_benchmark(benchmark: Benchmark, console: Console | None = None) -> dict[str, Any]:
    """Samples the missing completions, and writes and returns the results. Raises `UserError`."""
    task, engine, store, total = benchmark.task, benchmark.engine, benchmark.store, benchmark.total
    ungraded = [row for row in store.rows.values() if "reason" not in row]
    if not benchmark.is_complete or ungraded:
        with reporting_saved(store), store.lock():
            if not benchmark.is_complete:
                engine.start(_sampling(benchmark))  # before the clock starts
            graded = len(store.rows) - len(ungraded)
            right = sum(row.get("correct") is True for row in store.rows.values())
            with SamplingProgress(
                task.name, total, len(store.rows), right, console or Console(), graded=graded
            ) as progress:
                engine.watch(progress.add_tokens)
                _sample(benchmark, ungraded, progress)
    groups = {request.problem.index: request.problem.groups for request in benchmark.requests}
    results = {
        "task": task.name,
        "model": benchmark.model,
        "engine": engine.name,
        "protocol": {**benchmark.settings["protocol"], **engine.identity, "data": benchmark.settings["data"]},
        **({"judged_by": "tests"} if task.programs else {}),
        **summarise([store.rows[key] for key in sorted(store.rows)], benchmark.ks, votes=task.votes, groups=groups),
        "seconds": round(store.seconds, 3),
        "reported": reported_figures(benchmark.model, task.name),
    }
    store.finish(results)
    return results


def merge_shares(benchmark: Benchmark, shares: Sequence[Path]) -> dict[str, Any]:
    """Merges the results of a benchmark whose problems were divided. Removes the finished folder of each share."""
    seconds = max(read_results(share)["seconds"] for share in shares)
    rows = [row for share in shares for row in read_samples(share)]
    if missing := [row for row in rows if (row["index"], row["sample"]) not in benchmark.store]:
        benchmark.store.append(missing, seconds)
    results = run_benchmark(benchmark, Console(quiet=True))
    for share in shares:
        shutil.rmtree(share)
    return results


def _sample(benchmark: Benchmark, ungraded: Sequence[Row], progress: SamplingProgress) -> None:
    engine, store = benchmark.engine, benchmark.store
    problems = {request.problem.index: request.problem for request in benchmark.requests}
    judge = next(iter(problems.values())).judge or compared_with_gold  # problems of one benchmark share it
    writer = SampleWriter(store, judge, progress, columns=problem_columns)
    writer.grade([(problems[row["index"]], row) for row in ungraded])
    sampling = _sampling(benchmark)
    with writer:
        for block in blocks(benchmark.requests, engine.max_tokens_per_batch):
            missing = [request for request in block if any(key not in store for key in request.keys)]
            if missing:
                # Numbers depend on what shares a batch: what is decoded together stays together.
                sample(engine, block if engine.max_tokens_per_batch is not None else missing, sampling, writer)
    store.append([], writer.grading_seconds)
    if writer.failures:
        raise UserError(f"{len(writer.failures)} samples failed, the first one with: {writer.failures[0]}")


def _sampling(benchmark: Benchmark) -> Sampling:
    protocol, stops = benchmark.protocol, benchmark.engine.stop_token_ids
    return Sampling(temperature=protocol.temperature, top_p=protocol.top_p, stop_token_ids=stops)


def compared_with_gold(answers: Sequence[tuple[BenchmarkProblem, str]]) -> list[Verdict]:
    """Verdicts on completions by the grader of the rewards, each with its problem."""
    return grade_many(completions=[text for _, text in answers], golds=[problem.gold for problem, _ in answers])


def problem_columns(problem: BenchmarkProblem) -> Row:
    """The fields of a problem in a row of `samples.parquet`."""
    return {"id": problem.id, "problem": problem.problem, "prompt": problem.prompt, "gold": problem.gold}
