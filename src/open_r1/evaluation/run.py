"""Runs a benchmark: problems to requests, completions to graded samples, samples to results.

Requests are cut so that each is decoded in a batch whose make-up the settings alone decide. A resumed run decodes an
unfinished batch as a whole again and keeps the samples that were missing, so that it ends like an uninterrupted one.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.engine.choose import OpenEngine
from open_r1.engine.protocol import Completion, Request, Sampling, request_seed, token_count
from open_r1.errors import UserError
from open_r1.evaluation.protocol import Protocol
from open_r1.evaluation.results import reported_figures, summarise
from open_r1.evaluation.store import Row, SampleStore
from open_r1.evaluation.tasks import CHOICE_SEED, Problem, Task, digest
from open_r1.report.sampling_progress import SamplingProgress
from open_r1.rewards import grade_many


@dataclass(frozen=True)
class Ask:
    """`count` samples of a problem from number `first` on, as one request."""

    problem: Problem
    first: int
    count: int
    prompt: Any
    prompt_tokens: int
    max_tokens: int
    seed: int

    @property
    def keys(self) -> list[tuple[int, int]]:
        return [(self.problem.index, self.first + i) for i in range(self.count)]


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
    """Samples what `folder` does not hold yet, and writes and returns the results. Raises `UserError`."""
    console = console or Console()
    if ks and max(ks) > protocol.num_samples:
        raise UserError(f"k is {max(ks)}, but there are {protocol.num_samples} samples a problem: raise --num-samples.")
    asks = plan(problems, engine, protocol)
    note = _cut_short(asks, engine, protocol)
    if note:
        console.print(f"{task.name}: {note}", soft_wrap=True, highlight=False, markup=False)
    engine.reserve(max(ask.prompt_tokens + ask.max_tokens for ask in asks))
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
            **({"choice_seed": CHOICE_SEED} if task.multiple_choice else {}),
        },
        "n_problems": len(problems),
        "data": digest(problems),
    }
    store = SampleStore(folder, settings)
    total = len(problems) * protocol.num_samples
    right = sum(row["correct"] is True for row in store.rows.values())
    if len(store.rows) < total:
        with SamplingProgress(task.name, total, len(store.rows), right, console) as progress:
            engine.watch(progress.add_tokens)
            _sample(asks, engine, protocol, store, progress)
    results = {
        "task": task.name,
        "model": model,
        "engine": engine.name,
        "protocol": {**settings["protocol"], **engine.identity, "data": settings["data"]},
        **summarise([store.rows[key] for key in sorted(store.rows)], ks),
        "seconds": round(store.seconds, 3),
        "reported": reported_figures(model, task.name),
    }
    store.finish(results)
    return results


def plan(problems: Sequence[Problem], engine: OpenEngine, protocol: Protocol) -> list[Ask]:
    """The requests, in the order in which they are made. Raises `UserError` for a prompt that does not fit."""
    asks = []
    for problem in problems:
        system = [{"role": "system", "content": protocol.system_prompt}] if protocol.system_prompt else []
        prompt = engine.render([*system, {"role": "user", "content": problem.prompt}])  # type: ignore[list-item]
        length = engine.prompt_tokens(prompt)
        room = protocol.max_new_tokens if engine.context is None else engine.context - length
        if room < 1:
            raise UserError(
                f"problem {problem.id}: its prompt has {length:,} tokens, and the model's context {engine.context:,}: "
                "take a model with a longer context, or leave the problem out."
            )
        limit = min(protocol.max_new_tokens, room)
        count = _samples_a_request(engine, protocol, length + limit)
        for first in range(0, protocol.num_samples, count):
            seed = request_seed(protocol.seed, problem.index, first)
            asks.append(Ask(problem, first, min(count, protocol.num_samples - first), prompt, length, limit, seed))
    return sorted(asks, key=lambda ask: (-ask.max_tokens, -ask.prompt_tokens, ask.problem.index, ask.first))


def blocks(asks: Sequence[Ask], budget: int | None) -> Iterator[list[Ask]]:
    """Requests that are decoded together: at most `budget` tokens, prompts padded to the longest; None: all."""
    block: list[Ask] = []
    rows = width = 0
    for ask in asks:
        grown = max(width, ask.prompt_tokens + ask.max_tokens)
        if block and budget is not None and (rows + ask.count) * grown > budget:
            yield block
            block, rows, grown = [], 0, ask.prompt_tokens + ask.max_tokens
        block.append(ask)
        rows, width = rows + ask.count, grown
    if block:
        yield block


def graded(problem: Problem, completions: Sequence[Completion], first: int = 0, seed: int = 0) -> list[Row]:
    """Samples of a problem as rows of `samples.parquet`, with the grader's verdicts."""
    verdicts = grade_many(completions=[c.text for c in completions], golds=[problem.gold] * len(completions))
    return [
        {
            "index": problem.index,
            "id": problem.id,
            "problem": problem.problem,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "sample": first + i,
            "completion": completion.text,
            "n_tokens": token_count(completion),
            "finish_reason": completion.finish_reason,
            "extracted": verdict.extracted,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "seed": seed,
        }
        for i, (completion, verdict) in enumerate(zip(completions, verdicts, strict=True))
    ]


def _sample(
    asks: Sequence[Ask], engine: OpenEngine, protocol: Protocol, store: SampleStore, progress: SamplingProgress
) -> None:
    failures: list[str] = []
    since = time.monotonic()
    for ask, completions in _completions(asks, engine, protocol, store):
        failures.extend(c.text for c in completions if c.finish_reason == "error")
        missing = [
            row
            for row in graded(ask.problem, completions, ask.first, ask.seed)
            if row["finish_reason"] != "error" and (row["index"], row["sample"]) not in store.rows
        ]
        now = time.monotonic()
        store.append(missing, now - since)
        since = now
        progress.add_samples(len(missing), sum(row["correct"] is True for row in missing))
    if failures:
        raise UserError(f"{len(failures)} samples failed, the first thus: {failures[0]}. {_kept(store)}")


def _completions(
    asks: Sequence[Ask], engine: OpenEngine, protocol: Protocol, store: SampleStore
) -> Iterator[tuple[Ask, list[Completion]]]:
    """Requests with samples that `store` lacks, as they finish. An engine that dies raises `UserError`."""
    try:
        for block in blocks(asks, engine.max_tokens_per_batch):
            wanting = [ask for ask in block if any(key not in store.rows for key in ask.keys)]
            if not wanting:
                continue
            # Numbers depend on what shares a batch: what is decoded together stays together.
            chosen = block if engine.max_tokens_per_batch is not None else wanting
            by_id: dict[Any, Ask] = {(ask.problem.index, ask.first): ask for ask in chosen}
            for key, completions in engine.engine.stream(_request(ask, engine, protocol) for ask in chosen):
                yield by_id[key], completions
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. {_kept(store)}") from error
    except RuntimeError as error:  # what torch raises, out of memory among it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the engine stopped: {reason.rstrip('.')}. {_kept(store)}") from error


def _request(ask: Ask, engine: OpenEngine, protocol: Protocol) -> Request:
    sampling = Sampling(
        n=ask.count,
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        max_tokens=ask.max_tokens,
        stop_token_ids=engine.stop_token_ids,
        seed=ask.seed,
    )
    return Request((ask.problem.index, ask.first), ask.prompt, sampling)


def _samples_a_request(engine: OpenEngine, protocol: Protocol, tokens: int) -> int:
    """All that fit into a batch share a prefill; a server gets each as a request of its own."""
    if engine.max_tokens_per_batch is None:
        return 1
    return max(1, min(protocol.num_samples, engine.max_tokens_per_batch // tokens))


def _cut_short(asks: Sequence[Ask], engine: OpenEngine, protocol: Protocol) -> str | None:
    shortest = min(ask.max_tokens for ask in asks)
    if shortest >= protocol.max_new_tokens:
        return None
    return (
        f"max_new_tokens {protocol.max_new_tokens:,} does not fit the model's context of {engine.context:,} tokens: "
        f"an answer may have {shortest:,} tokens, or what its prompt leaves."
    )


def _kept(store: SampleStore) -> str:
    return f"{len(store.rows)} finished samples are kept in {store.folder}; the same command continues."
