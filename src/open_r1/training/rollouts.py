"""Rollouts: completions with their rewards and advantages, as the trainer learns from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Completion, Engine, Request, Sampling
from open_r1.errors import UserError
from open_r1.rewards import RewardError, extract_answer, prefetch, score
from open_r1.rewards.accuracy import golds_of
from open_r1.rewards.text import prefill_of
from open_r1.training.advantages import combine_rewards, group_advantages
from open_r1.training.packing import TokenFields, TokenSequence, tensor_of

PROMPT_COLUMNS = ("prompt", "prompt_ids", "prompt_text")


@dataclass
class Round:
    """Groups of `completions` for `prompts` and their `rewards (B, R)`, or the `error` of a reward; `seconds` that
    generation and scoring took."""

    prompts: list[Mapping[str, Any]]
    completions: list[list[Completion]]
    rewards: Tensor = field(default_factory=lambda: torch.empty(0))
    error: RewardError | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: everything but the prompts."""
        completions = [[c.__dict__ for c in group] for group in self.completions]
        return {"completions": completions, "rewards": self.rewards, "seconds": self.seconds}

    @staticmethod
    def from_state(prompts: list[Mapping[str, Any]], state: Mapping[str, Any]) -> "Round":
        """Restores what `state` returned."""
        completions = [[Completion(**c) for c in group] for group in state["completions"]]
        return Round(prompts, completions, state["rewards"], seconds=state["seconds"])


@dataclass
class Rollouts:
    """B completions of B / G prompts, groups side by side.

    `rewards (B, R)` per reward function (NaN: no verdict), `total (B,)` weighted sum, `advantages (B,)`,
    `signal (B / G,)` whether a group's rewards differ, `masked (B,)` completions that must not be learned from.
    """

    prompts: list[Mapping[str, Any]]
    completions: list[list[Completion]]
    rewards: Tensor
    total: Tensor
    advantages: Tensor
    signal: Tensor
    masked: Tensor

    def flat(self) -> list[tuple[Mapping[str, Any], Completion]]:
        """`(prompt row, completion)` for each of the B completions."""
        return [(row, c) for row, group in zip(self.prompts, self.completions, strict=True) for c in group]


def sampling_seed(run_seed: int, rollout: int, prompt: int) -> int:
    """Seed of one prompt's completions: the same whatever the number of processes, and after a resume."""
    return int(np.random.SeedSequence([run_seed, rollout, prompt]).generate_state(1, np.uint64)[0])


def sample_groups(
    engine: Engine,
    prompts: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    seeds: Sequence[int],
    on_completion: Callable[[Mapping[str, Any], Completion], None] | None = None,
) -> list[list[Completion]]:
    """Samples `sampling.n` completions for every prompt row (`prompt_ids`), each group from its own seed.

    Calls `on_completion` for every completion while others are still being sampled: as soon as it ends if the engine
    supports `on_completion`, else when its group is complete.
    """
    requests = [
        Request(id=i, prompt=list(row["prompt_ids"]), sampling=replace(sampling, seed=seed))
        for i, (row, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]
    groups: dict[Any, list[Completion]] = {}

    def report(i: Any, completion: Completion) -> None:
        if on_completion is not None:
            on_completion(prompts[i], completion)

    with _reporting_to(engine, report) as engine_reports:
        for i, group in engine.stream(requests):
            groups[i] = group
            for completion in () if engine_reports else group:
                report(i, completion)
    return [groups[i] for i in range(len(prompts))]


@contextmanager
def _reporting_to(engine: Any, report: Callable[[Any, Completion], None]) -> Iterator[bool]:
    """Inside the context, `engine` passes completions to `report` as they end. False if it does not support this."""
    if not hasattr(engine, "on_completion"):
        yield False
        return
    engine.on_completion = report
    try:
        yield True
    finally:
        engine.on_completion = None


def start_grading(row: Mapping[str, Any], completion: Completion) -> None:
    """Grades in the background, so that the accuracy reward later finds the verdict ready."""
    if "answer" in row or "solution" in row:
        golds = golds_of([row.get("solution")], [row.get("answer")], 1)
        prefetch(completions=[prefill_of(row["prompt_text"]) + completion.text], golds=golds)


def start_judging(funcs: Sequence[Callable], row: Mapping[str, Any], completion: Completion) -> None:
    """Starts slow rewards (programs) in the background, by calling their attribute `begin` with the arguments of the
    reward. Faults in a row are reported later, when the reward scores the round."""
    columns = {name: [value] for name, value in row.items() if name not in PROMPT_COLUMNS}
    for func in funcs:
        if hasattr(func, "begin"):
            with suppress(UserError):
                func.begin(completions=[completion.text], **columns)


def score_groups(
    prompts: Sequence[Mapping[str, Any]],
    completions: Sequence[Sequence[Completion]],
    funcs: Sequence[Callable],
    names: Sequence[str],
    step: int,
) -> Tensor:
    """Rewards `(B, R)` of all completions; NaN where a reward has no verdict."""
    pairs = [(row, c) for row, group in zip(prompts, completions, strict=True) for c in group]
    if not pairs:
        return torch.zeros(0, len(funcs))
    columns = {k: [row[k] for row, _ in pairs] for k in prompts[0] if k not in PROMPT_COLUMNS}
    scores = score(
        funcs,
        names=names,
        prompts=[row["prompt"] for row, _ in pairs],
        prompt_texts=[row["prompt_text"] for row, _ in pairs],
        completions=[c.text for _, c in pairs],
        completion_ids=[c.token_ids or [] for _, c in pairs],
        columns=columns,
        step=step,
    )
    return torch.tensor([[float("nan") if (v := s[n]) is None else v for n in names] for s in scores])


def with_advantages(
    sampled: Round,
    args: GRPOConfig,
    scale: Literal["group", "batch", "none"],
    batch_std: Callable[[Tensor], float] | None = None,
    group: int | None = None,
) -> Rollouts:
    """The advantages of a scored round, whose groups have `num_generations` (or `group`) completions.

    `batch_std`, for scale `batch`, gives the standard deviation of totals over all ranks. Completions that ended in
    an error are never learned from, truncated ones not with `mask_truncated_completions`.
    """
    weights = args.reward_weights or [1.0] * sampled.rewards.shape[-1]
    total = combine_rewards(sampled.rewards, torch.tensor(weights))
    std = batch_std(total) if scale == "batch" and batch_std is not None else None
    advantages, signal = group_advantages(total, group or args.num_generations, scale, std)
    unlearned = ("error", "length") if args.mask_truncated_completions else ("error",)
    flat = [c for completions in sampled.completions for c in completions]
    masked = torch.tensor([c.finish_reason in unlearned for c in flat], dtype=torch.bool)
    return Rollouts(sampled.prompts, sampled.completions, sampled.rewards, total, advantages, signal, masked)


def rollout_sequence(row: Mapping[str, Any], completion: Completion, group: int | None = None) -> TokenSequence:
    """Prompt and completion as one document, of which the completion is learned; `group` shares the prompt."""
    shared = len(row["prompt_ids"])
    ids = tensor_of([*row["prompt_ids"], *(completion.token_ids or [])], np.int64)
    return TokenSequence(
        input_ids=ids,
        learn=torch.arange(len(ids)) >= shared,
        fields=TokenFields(
            sampler_logprobs=None if completion.logprobs is None else tensor_of(completion.logprobs, np.float32),
            experts=None if completion.experts is None else tensor_of(completion.experts, np.int64),
        ),
        group=group,
        shared=shared,
    )


def rollout_rows(rollouts: Rollouts, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for `RunRecorder.log_rollouts`."""
    columns = {"reward": _numbers(rollouts.total), "advantage": rollouts.advantages.tolist()}
    columns |= {f"reward/{name}": _numbers(rollouts.rewards[:, r]) for r, name in enumerate(names)}
    rows = unscored_rows(rollouts.prompts, rollouts.completions)
    for i, row in enumerate(rows):
        row |= {name: values[i] for name, values in columns.items()}
    return rows


def unscored_rows(
    prompts: Sequence[Mapping[str, Any]], completions: Sequence[Sequence[Completion]]
) -> list[dict[str, Any]]:
    """What is known of completions before they are scored."""
    return [
        {
            "prompt": row["prompt_text"],
            "gold": row.get("answer") or row.get("solution"),
            "completion": completion.text,
            "n_tokens": len(completion.token_ids or []),
            "finish_reason": completion.finish_reason,
        }
        for row, group in zip(prompts, completions, strict=True)
        for completion in group
    ]


def _numbers(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # NaN equals nothing


def rollout_metrics(rollouts: Rollouts, names: Sequence[str], reduce_sum: Callable[[float], float]) -> dict[str, float]:
    """Means over all ranks, under TRL's names; standard deviations are over completions."""

    def mean_and_std(values: Tensor) -> tuple[float, float]:
        known = values[~values.isnan()].double()
        count = reduce_sum(float(len(known)))
        mean = reduce_sum(known.sum().item()) / max(count, 1)
        return mean, (reduce_sum((known - mean).square().sum().item()) / max(count - 1, 1)) ** 0.5

    lengths = torch.tensor([float(len(c.token_ids or [])) for _, c in rollouts.flat()])
    truncated = torch.tensor([float(c.finish_reason == "length") for _, c in rollouts.flat()])
    metrics: dict[str, float] = {}
    metrics["reward"], metrics["reward_std"] = mean_and_std(rollouts.total)
    for r, name in enumerate(names):
        column = rollouts.rewards[:, r]
        metrics[f"rewards/{name}/mean"], metrics[f"rewards/{name}/std"] = mean_and_std(column)
        metrics[f"rewards/{name}/none"] = mean_and_std(column.isnan().double())[0]
    metrics["frac_reward_zero_std"] = mean_and_std((~rollouts.signal).double())[0]
    distinct = [float(len({extract_answer(c.text) for c in group})) for group in rollouts.completions]
    metrics["completions/distinct_answers"] = mean_and_std(torch.tensor(distinct))[0]
    metrics["completions/mean_length"] = mean_and_std(lengths)[0]
    metrics["completions/clipped_ratio"] = mean_and_std(truncated)[0]
    return metrics
