"""Rewards: how good a completion is. Plain Python over strings, no torch.

`get_reward_funcs` finds rewards by name, `score` calls them on a batch, and `grade` compares one answer. The rewards
themselves can be imported from here, as in huggingface/open-r1.
"""

from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.answers import extract_answer
from open_r1.rewards.code.rewards import (
    binary_code_reward,
    cf_code_reward,
    code_reward,
    get_code_format_reward,
    ioi_code_reward,
)
from open_r1.rewards.format import format_lenient_reward, format_reward
from open_r1.rewards.gold import gold_completion
from open_r1.rewards.grader import Verdict, check_gold, check_golds, configure, grade, grade_many, prefetch
from open_r1.rewards.length import get_cosine_scaled_reward, get_soft_overlong_punishment, len_reward
from open_r1.rewards.reasoning_steps import reasoning_steps_reward
from open_r1.rewards.registry import BEST, GRADED, REGISTRY, get_reward_func, get_reward_funcs
from open_r1.rewards.repetition import get_repetition_penalty_reward
from open_r1.rewards.score import RewardError, reward_name, score
from open_r1.rewards.tag_count import tag_count_reward

__all__ = [
    "BEST",
    "GRADED",
    "REGISTRY",
    "RewardError",
    "Verdict",
    "accuracy_reward",
    "binary_code_reward",
    "cf_code_reward",
    "check_gold",
    "check_golds",
    "code_reward",
    "configure",
    "extract_answer",
    "format_lenient_reward",
    "format_reward",
    "get_code_format_reward",
    "get_cosine_scaled_reward",
    "get_repetition_penalty_reward",
    "get_reward_func",
    "get_reward_funcs",
    "get_soft_overlong_punishment",
    "gold_completion",
    "grade",
    "grade_many",
    "ioi_code_reward",
    "len_reward",
    "prefetch",
    "reasoning_steps_reward",
    "reward_name",
    "score",
    "tag_count_reward",
]
