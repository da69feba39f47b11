"""What a completion is worth: plain Python over strings, no torch.

`get_reward_funcs` finds rewards by name, `score` calls them on a batch, `grade` compares one answer.
"""

from open_r1.rewards.answers import extract_answer
from open_r1.rewards.gold import gold_completion
from open_r1.rewards.grader import Verdict, check_gold, check_golds, configure, grade, grade_many, prefetch
from open_r1.rewards.registry import BEST, REGISTRY, get_reward_func, get_reward_funcs
from open_r1.rewards.score import RewardError, reward_name, score

__all__ = [
    "BEST",
    "REGISTRY",
    "RewardError",
    "Verdict",
    "check_gold",
    "check_golds",
    "configure",
    "extract_answer",
    "get_reward_func",
    "get_reward_funcs",
    "gold_completion",
    "grade",
    "grade_many",
    "prefetch",
    "reward_name",
    "score",
]
