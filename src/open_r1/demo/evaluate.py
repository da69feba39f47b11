"""Sampling from the demo's models, through the engine and the grader that all of Open R1 uses."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from open_r1.data.chat import prepare_tokenizer, stop_token_ids
from open_r1.demo.task import Problem, conversation
from open_r1.engine.protocol import Completion, Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.evaluation.grading import graded
from open_r1.evaluation.plan import Ask
from open_r1.evaluation.results import summarise
from open_r1.evaluation.store import SampleStore
from open_r1.evaluation.tasks import Problem as Asked
from open_r1.rewards.grader import grade_many

MAX_TOKENS = 80
"""Longest completion; the longest careful answer has 60 tokens."""


@dataclass(frozen=True)
class Score:
    """How a model did: share of right answers with its 95% interval, number of problems, mean tokens."""

    accuracy: float
    ci95: tuple[float, float]
    n: int
    mean_tokens: float


def sample_answers(
    model_dir: Path,
    problems: Sequence[Problem],
    samples: int,
    seed: int,
    on_tokens: Callable[[int], None] | None = None,
) -> list[list[Completion]]:
    """`samples` completions at temperature 1 for each problem."""
    tokenizer = prepare_tokenizer(str(model_dir))
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    stops = stop_token_ids(tokenizer, model.generation_config)
    engine = TransformersEngine(model, tokenizer, on_tokens=on_tokens)
    requests = [
        Request(
            i,
            conversation(p.question),
            Sampling(samples, 1.0, max_tokens=MAX_TOKENS, stop_token_ids=stops, seed=s, logprobs=False),
        )
        for i, (p, s) in enumerate(zip(problems, _seeds(seed, len(problems)), strict=True))
    ]
    completions = engine.generate(requests)
    engine.close()
    return completions


def verify(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[bool]:
    """Whether each completion answers its problem rightly."""
    golds = [str(problem.answer) for problem in problems]
    verdicts = grade_many(completions=[c.text for c in completions], golds=golds)
    return [verdict.correct is True for verdict in verdicts]


def evaluate(
    model_dir: Path, problems: Sequence[Problem], seed: int, on_tokens: Callable[[int], None] | None = None
) -> Score:
    """One answer to each problem. Returns the score, and writes `evaluation/sums/` of the model's folder in the form
    that `open-r1 evaluate` writes and `report` and `compare` read, with Wilson's interval."""
    began = time.perf_counter()
    answers = sample_answers(model_dir, problems, 1, seed, on_tokens)
    asks = [
        Ask(
            problem=Asked(i, f"{i + 1}", problem.question, problem.question, str(problem.answer)),
            first=0,
            count=1,
            prompt=None,
            prompt_tokens=0,
            max_tokens=MAX_TOKENS,
            seed=s,
        )
        for i, (problem, s) in enumerate(zip(problems, _seeds(seed, len(problems)), strict=True))
    ]
    rows = graded(list(zip(asks, answers, strict=True)))
    right, n = sum(row["correct"] is True for row in rows), len(rows)
    score = Score(right / n, wilson_interval(right, n), n, sum(row["n_tokens"] for row in rows) / n)
    protocol = {"temperature": 1.0, "top_p": 1.0, "num_samples": 1, "max_new_tokens": MAX_TOKENS, "seed": seed}
    folder = model_dir / "evaluation" / "sums"
    shutil.rmtree(folder, ignore_errors=True)
    store = SampleStore(folder, {"task": "sums", "protocol": protocol, "n_problems": n})
    store.append(rows, seconds=time.perf_counter() - began)
    store.finish(
        {
            "task": "sums",
            "model": str(model_dir),
            "engine": "transformers",
            "protocol": protocol,
            **summarise(rows),
            "ci95": list(score.ci95),
            "interval": "wilson",
            "seconds": round(store.seconds, 3),
            "reported": [],
        }
    )
    return score


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share of `right` among `n` (Wilson 1927), at 95% unless `z` says otherwise."""
    share = right / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def _seeds(seed: int, count: int) -> range:
    return range(seed * 1_000_003, seed * 1_000_003 + count)
