"""Metrics of a benchmark from its graded samples: pure functions, with an interval for each mean.

A problem's pass rate is its mean over samples, and a model's score is the mean over problems. The problems are the
random draw, so intervals resample problems, never samples.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95% interval."""

    value: float
    ci95: tuple[float, float]


def pass_at_1(correct: Sequence[Sequence[bool]]) -> list[float]:
    """Pass rate of each problem, the mean over its samples (DeepSeek-R1, arXiv 2501.12948, section 4: pass@1 =
    (1/k) sum of p_i). `correct[i]` are the verdicts on the samples of problem i, at least one."""
    return [sum(samples) / len(samples) for samples in correct]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of `k` samples is right, if `c` of `n` are right: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, equation 1). Raises ValueError for k > n, which n
    samples cannot estimate.
    """
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} samples cannot be right")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem; there are {n}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def vote_credit(right: int, wrong: Sequence[int]) -> float:
    """Credit of a majority vote: `right` votes for the gold answer, `wrong[j]` for the j-th distinct wrong one.

    The credit is 1 if the gold answer has the most votes, and 0 if another one has more or there are no votes. If the
    gold answer ties with others for the most votes, t in all, it is 1/t, the chance of a random pick. This is cons@k of
    DeepSeek-R1 (self-consistency, Wang et al. 2022, arXiv 2203.11171) with deterministic ties.
    """
    most = max([right, *wrong])
    if most == 0 or right < most:
        return 0.0
    return 1.0 / (1 + sum(votes == most for votes in wrong))


def consensus(
    answers: Sequence[str | None], correct: Sequence[bool], same: Callable[[str, str], bool]
) -> tuple[int, list[int]]:
    """`(right, wrong)` as `vote_credit` takes them: votes for the gold answer, and for each distinct wrong answer.

    A right answer votes for the gold one, so all ways to write it count together. Wrong answers that `same` considers
    equal count together too. A missing answer (None) does not vote.
    """
    right = sum(is_right for answer, is_right in zip(answers, correct, strict=True) if answer is not None)
    texts = Counter(
        answer for answer, is_right in zip(answers, correct, strict=True) if answer is not None and not is_right
    )
    votes: dict[str, int] = {}
    for text, count in texts.items():
        known = next((other for other in votes if same(text, other)), text)
        votes[known] = votes.get(known, 0) + count
    return right, list(votes.values())


def mean_with_interval(
    values: Sequence[float], *, low: float = 0.0, high: float = 1.0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean over problems, with the percentile bootstrap over problems (Efron 1979). All values are in [low, high].

    If all values are equal, resampling has no effect. Then the share of problems with another value is bounded as by
    Clopper and Pearson (1934) with 0 of n, at most u = 1 - 0.025^(1/n), and the interval is that of a mean with a share
    u at `low` or at `high`. If all are 0 or all are 1, this is the Clopper-Pearson interval.
    """
    if not values:
        raise ValueError("there are no problems to take the mean of")
    data = np.asarray(values, dtype=np.float64)
    n, mean = len(data), float(np.mean(data))
    if np.all(data == data[0]):
        unseen = 1.0 - 0.025 ** (1.0 / n)
        return Estimate(float(data[0]), (mean - unseen * (mean - low), mean + unseen * (high - mean)))
    rng = np.random.default_rng(0)
    rows = max(1, 4_000_000 // n)
    means = np.concatenate(
        [data[rng.integers(0, n, (min(rows, resamples - i), n))].mean(1) for i in range(0, resamples, rows)]
    )
    lower, upper = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, (float(lower), float(upper)))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Mean of `b - a` over the same problems, with its interval. What makes a problem hard for both cancels out."""
    differences = [y - x for x, y in zip(a, b, strict=True)]
    return mean_with_interval(differences, low=-1.0, high=1.0)


def in_percent(value: float, ci95: Sequence[float], *, unit: str = "", signed: bool = False) -> str:
    """A share of 1 with its interval, such as `39.3 [35.1, 43.6]`; `signed` for a difference."""
    sign = "+" if signed else ""
    number, low, high = (f"{x * 100:{sign}.1f}" for x in (value, *ci95))
    return f"{number}{unit} [{low}, {high}]"


def share(flags: Sequence[bool]) -> float:
    """Share of true flags; 0 if there are none."""
    return sum(flags) / len(flags) if flags else 0.0


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-th percentile, interpolated; None without values."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), q)) if values else None
