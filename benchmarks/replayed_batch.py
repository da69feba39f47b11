"""Completions with their rewards, drawn once, and how TRL's GRPO trainer is given them instead of generating."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from measure import StepTimer


@dataclass
class Batch:
    """`prompts` and, for each, a group of `completions` with their `rewards`; all token ids."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]
    rewards: list[list[float]]

    @property
    def tokens(self) -> int:
        """Tokens of all prompts with their completions, a prompt counted with each of its completions."""
        pairs = zip(self.prompts, self.completions, strict=True)
        return sum(len(p) + len(c) for p, group in pairs for c in group)


def rollout_function(batch: Batch) -> Callable[[Sequence[str], Any], dict[str, Any]]:
    """A `rollout_func` for prompts that are indices into the batch: each time a prompt comes, its next completion."""

    def rollout(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        seen: dict[str, int] = {}
        ids, completions, rewards = [], [], []
        for prompt in prompts:
            which = seen[prompt] = seen.get(prompt, -1) + 1
            ids.append(batch.prompts[int(prompt)])
            completions.append(batch.completions[int(prompt)][which])
            rewards.append(batch.rewards[int(prompt)][which])
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None, "replayed": rewards}

    return rollout


def replayed(completions: Sequence[Any], replayed: Sequence[float], **columns: Any) -> list[float]:
    """The rewards that came with the completions."""
    return list(replayed)


class ReplayedTRL:
    """Goes before TRL's trainer: starts the clock when a step's completions are scored."""

    timer: StepTimer
    tokens: int

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        scored = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.timer.tokens = self.timer.computed = self.tokens
        self.timer.start()
        return scored
