"""Samples from the demo's models, with the same loop, engine and grader as the rest of Open R1."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.demo.task import Problem, Task, conversation
from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.protocol import Sampling
from open_r1.evaluation.problems import BenchmarkProblem
from open_r1.evaluation.results import summarise
from open_r1.evaluation.run import problem_columns
from open_r1.evaluation.store import SampleStore
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import Verdict
from open_r1.sampling.journal import Row
from open_r1.sampling.loop import SampleWriter, sample
from open_r1.sampling.requests import SampleRequest

TOKENS_PER_BATCH = 65536


@dataclass(frozen=True)
class Score:
    """A model's result: share of right answers, its 95% interval, number of problems, and mean tokens per answer."""

    accuracy: float
    ci95: tuple[float, float]
    n: int
    mean_tokens: float


def sample_answers(
    task: Task,
    model_dir: Path,
    problems: Sequence[Problem],
    samples: int,
    seed: int,
    folder: Path,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Row]:
    """Samples and grades `samples` completions per problem at temperature 1; returns the rows of samples.parquet.

    Writes `folder` as `open-r1 evaluate` does, so that `report` and `compare` can read it; the interval is Wilson's.
    """
    engine = open_engine(
        EngineOptions(str(model_dir), engine="transformers", dtype="float32", max_tokens_per_batch=TOKENS_PER_BATCH)
    )
    engine.watch(on_tokens)
    requests = [_request(engine.render, i, p, samples, task.max_tokens, seed) for i, p in enumerate(problems)]
    protocol = {
        "temperature": 1.0,
        "top_p": 1.0,
        "num_samples": samples,
        "max_new_tokens": task.max_tokens,
        "seed": seed,
    }

    def judge(answers: Sequence[tuple[BenchmarkProblem, str]]) -> list[Verdict]:
        return task.grade([(problems[problem.index], text) for problem, text in answers])

    shutil.rmtree(folder, ignore_errors=True)
    store = SampleStore(folder, {"task": task.name, "protocol": protocol, "n_problems": len(problems)})
    progress = SamplingProgress(task.name, len(problems) * samples, 0, 0, Console(quiet=True))
    with SampleWriter(store, judge, progress, columns=problem_columns) as writer:
        sample(engine, requests, Sampling(temperature=1.0, stop_token_ids=engine.stop_token_ids), writer)
    engine.engine.close()
    rows = [store.rows[key] for key in sorted(store.rows)]
    right = sum(row["correct"] is True for row in rows)
    store.finish(
        {
            "task": task.name,
            "model": str(model_dir),
            "engine": engine.name,
            "protocol": protocol,
            **summarise(rows),
            "ci95": list(wilson_interval(right, len(rows))),
            "interval": "wilson",
            "seconds": round(store.seconds, 3),
            "reported": [],
        }
    )
    return rows


def evaluate(
    task: Task,
    model_dir: Path,
    problems: Sequence[Problem],
    seed: int,
    on_tokens: Callable[[int], None] | None = None,
) -> Score:
    """Samples one answer per problem into `evaluation/<task>/` of the model's folder; returns the score."""
    rows = sample_answers(task, model_dir, problems, 1, seed, model_dir / "evaluation" / task.name, on_tokens)
    right, n = sum(row["correct"] is True for row in rows), len(rows)
    return Score(right / n, wilson_interval(right, n), n, sum(row["n_tokens"] for row in rows) / n)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for the proportion `right / n` (Wilson 1927)."""
    z = 1.959964
    share = right / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def _request(
    render: Callable[[Any], Any], index: int, problem: Problem, samples: int, max_tokens: int, seed: int
) -> SampleRequest:
    prompt = render(conversation(problem.question))
    benchmark_problem = BenchmarkProblem(index, str(index + 1), problem.question, problem.question, problem.gold)
    return SampleRequest(benchmark_problem, 0, samples, prompt, len(prompt), max_tokens, seed * 1_000_003 + index)
