"""Options of rewards."""

from dataclasses import dataclass, field
from typing import Any, Literal

from open_r1.errors import UserError


class OptionError(UserError, ValueError):
    """A reward has an invalid option."""


@dataclass
class RewardOptions:
    """Options of rewards."""

    cosine_min_value_wrong: float = 0.0
    """`cosine`: reward of the shortest wrong answer."""
    cosine_max_value_wrong: float = -0.5
    """`cosine`: reward of a wrong answer of `cosine_max_len`."""
    cosine_min_value_correct: float = 0.5
    """`cosine`: reward of a right answer of `cosine_max_len`."""
    cosine_max_value_correct: float = 1.0
    """`cosine`: reward of the shortest right answer."""
    cosine_max_len: int = 1000
    """`cosine`: length in characters at which the scaling ends."""
    repetition_n_grams: int = 3
    """`repetition_penalty`: number of words in an n-gram."""
    repetition_max_penalty: float = -1.0
    """`repetition_penalty`: reward of a completion that only repeats itself; at most 0."""
    repetition_language: Literal["en", "zh"] = "en"
    """`repetition_penalty`: how to split text into words; `zh` needs the extra `chinese`."""
    max_completion_len: int = 16384
    """`soft_overlong_punishment`: length in tokens at which the reward reaches -1."""
    soft_punish_cache: int = 4096
    """`soft_overlong_punishment`: number of tokens over which the reward falls from 0 to -1."""
    code_language: str = "python"
    """`code_format`: required language of the code block. A column `language` takes precedence."""
    code_provider: Literal["local", "unsafe", "piston", "e2b"] = "local"
    """Code rewards: where programs run (docs/rewards.md). `unsafe` is `local`, but also works on machines that
    cannot isolate programs."""
    code_languages: list[str] = field(default_factory=list)
    """Code rewards: more languages, each `name | main file | compile command | run command`."""
    ioi_provider: Literal["local", "unsafe", "piston"] = "local"
    """`ioi_code`: where programs run."""
    code_eval_scoring_mode: Literal["pass_fail", "partial", "weighted_sum"] = "weighted_sum"
    """`cf_code`: 1 if all tests pass, the share of passed tests, or the first plus 0.1 times the second."""
    code_eval_test_batch_size: int = 1
    """`cf_code`, `ioi_code`: number of test cases of a program that run at once; -1: one per core."""
    parallel_code_exec_per_proc: int = 0
    """Code rewards: number of programs that each training process judges at once; 0: its share of the machine's
    cores."""
    code_time_limit: float = 5.0
    """Code rewards: CPU seconds per test case."""
    code_memory_limit: int = 512
    """Code rewards: megabytes per test case."""
    e2b_router_url: str | None = None
    """Code rewards: host:port of an E2B router. Default: E2B's SDK with `E2B_API_KEY`."""


def option(script_args: Any, name: str) -> Any:
    """Value of a field of the script arguments, or its default where they have none."""
    return getattr(script_args, name, getattr(RewardOptions(), name))
