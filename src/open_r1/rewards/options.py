"""Options of rewards that take any."""

from typing import Any

from open_r1.errors import UserError


class OptionError(UserError, ValueError):
    """A reward was given an option that it cannot work with."""


DEFAULTS: dict[str, Any] = {
    "cosine_min_value_wrong": 0.0,
    "cosine_max_value_wrong": -0.5,
    "cosine_min_value_correct": 0.5,
    "cosine_max_value_correct": 1.0,
    "cosine_max_len": 1000,
    "repetition_n_grams": 3,
    "repetition_max_penalty": -1.0,
    "repetition_language": "en",
    "max_completion_len": 16384,
    "soft_punish_cache": 4096,
    "code_language": "python",
    "code_provider": "local",
    "ioi_provider": "local",
    "code_eval_scoring_mode": "weighted_sum",
    "code_eval_test_batch_size": 1,
    "parallel_code_exec_per_proc": 2,
    "code_time_limit": 5.0,
    "code_memory_limit": 512,
    "e2b_router_url": None,
}
"""Fields of the script arguments that rewards read, with their defaults."""


def option(script_args: Any, name: str) -> Any:
    """Value of a field of the script arguments, or its default where they have none."""
    return getattr(script_args, name, DEFAULTS[name])
