"""Penalizes completions that repeat themselves."""

from collections.abc import Callable
from typing import Any

from open_r1.installing import install_command
from open_r1.rewards.options import OptionError
from open_r1.rewards.text import texts_of


def get_repetition_penalty_reward(
    ngram_size: int, max_penalty: float, language: str = "en"
) -> Callable[..., list[float]]:
    """n-gram repetition penalty (Demystifying Long CoT, arXiv 2502.03373, appendix C.2).

    `max_penalty` (at most 0) times the share of n-grams of words that occurred before. 0 for completions shorter than
    an n-gram. `language` selects how text is split into words: `en` at white space, `zh` with jieba.
    """
    if max_penalty > 0:
        raise OptionError(
            f"repetition_max_penalty is {max_penalty}: it must be at most 0, because it is the reward of full "
            f"repetition."
        )
    if ngram_size < 1:
        raise OptionError(f"repetition_n_grams is {ngram_size}: it must be at least 1.")
    if language not in ("en", "zh"):
        raise OptionError(f"repetition_language is {language!r}: it must be 'en' or 'zh'.")
    split = _chinese_words() if language == "zh" else str.split

    def repetition_penalty_reward(completions: list, **kwargs: Any) -> list[float]:
        """Share of repeated n-grams, times the penalty."""
        rewards = []
        for text in texts_of(completions):
            words = split(text.lower())
            ngrams = list(zip(*(words[start:] for start in range(ngram_size)), strict=False))
            repeated = 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
            rewards.append(repeated * max_penalty or 0.0)
        return rewards

    return repetition_penalty_reward


def _chinese_words() -> Callable[[str], list[str]]:
    try:
        import jieba
    except ImportError:
        command = install_command("chinese")
        raise OptionError(f"repetition_language is 'zh', which needs jieba: {command}.") from None
    jieba.setLogLevel("ERROR")
    return lambda text: [word for word in jieba.lcut(text) if word.strip()]
