"""Rewards that depend on the length of a completion and on whether it is right."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from open_r1.rewards.accuracy import golds_of, grade_rows
from open_r1.rewards.grader import check_gold
from open_r1.rewards.options import OptionError
from open_r1.rewards.text import texts_of


def len_reward(
    completions: list,
    solution: list | None = None,
    answer: list | None = None,
    prompts: list | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """Length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3), in characters.

    λ = 0.5 - (length - shortest) / (longest - shortest), over the completions of one prompt (over all rows if `prompts`
    is not given). Right answers get λ, wrong ones min(0, λ), and all get 0 if they are equally long. If the right
    answer cannot be parsed, the completion counts as right, as in open-r1. It gets None if the grader hit a limit.
    """
    verdicts = grade_rows(completions, solution, answer, prompts, kwargs.get("prefills"))
    golds = golds_of(solution, answer, len(completions))
    lengths = [len(text) for text in texts_of(completions)]
    groups: dict[str, list[int]] = defaultdict(list)
    for row in range(len(completions)):
        groups[repr(prompts[row]) if prompts is not None else ""].append(row)
    rewards: list[float | None] = [None] * len(completions)
    for rows in groups.values():
        shortest = min(lengths[row] for row in rows)
        spread = max(lengths[row] for row in rows) - shortest
        for row in rows:
            weight = 0.5 - (lengths[row] - shortest) / spread if spread else 0.0
            correct = verdicts[row].correct if check_gold(golds[row]) is None else True
            rewards[row] = None if correct is None else weight if correct else min(0.0, weight)
    return rewards


def get_cosine_scaled_reward(
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    max_len: int = 1000,
) -> Callable[..., list[float | None]]:
    """Cosine length scaling (Demystifying Long CoT, arXiv 2502.03373, section 4.1), in characters.

    As the length goes from 0 to `max_len`, right answers fall from `max_value_correct` to `min_value_correct`, and
    wrong ones go from `min_value_wrong` to `max_value_wrong`. Longer completions count as `max_len`.
    """
    if max_len <= 0:
        raise OptionError(f"cosine_max_len is {max_len}: it must be above 0.")

    def cosine_scaled_reward(
        completions: list, solution: list | None = None, answer: list | None = None, **kwargs: Any
    ) -> list[float | None]:
        """Right or wrong, scaled by length."""
        rewards: list[float | None] = []
        verdicts = grade_rows(completions, solution, answer, kwargs.get("prompts"), kwargs.get("prefills"))
        for text, verdict in zip(texts_of(completions), verdicts, strict=True):
            progress = min(1.0, len(text) / max_len)
            ends = (max_value_correct, min_value_correct) if verdict.correct else (min_value_wrong, max_value_wrong)
            value = ends[1] + 0.5 * (ends[0] - ends[1]) * (1.0 + math.cos(progress * math.pi))
            rewards.append(None if verdict.correct is None else value)
        return rewards

    return cosine_scaled_reward


def get_soft_overlong_punishment(max_completion_len: int, soft_punish_cache: int) -> Callable[..., list[float]]:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13), in tokens.

    It is 0 up to `max_completion_len - soft_punish_cache`, falls linearly to -1 at `max_completion_len`, and stays -1.
    """
    if not 0 < soft_punish_cache <= max_completion_len:
        raise OptionError(
            f"soft_punish_cache is {soft_punish_cache}: it must be above 0 and at most max_completion_len "
            f"({max_completion_len})."
        )

    def soft_overlong_punishment_reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        """Penalizes completions near the length limit."""
        free = max_completion_len - soft_punish_cache
        return [max(-1.0, min(0.0, (free - len(ids)) / soft_punish_cache)) for ids in completion_ids]

    return soft_overlong_punishment_reward
