"""Detects, from its metrics, that a GRPO run makes no progress, and says so in a sentence."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

Step = Mapping[str, float]


class Health:
    """Looks at the last `window` steps. `check` returns each problem once, and again if it comes back."""

    def __init__(self, window: int = 10) -> None:
        self.steps: deque[Step] = deque(maxlen=2 * window)
        self.window = window
        self.known: set[str] = set()

    def check(self, logs: Step) -> list[str]:
        """New problems after the logs of another step. Logs without a reward, such as those of evaluations, are
        ignored."""
        if "reward" not in logs:
            return []
        self.steps.append(dict(logs))
        found = {}
        for symptom in SYMPTOMS:
            problem = symptom(list(self.steps), self.window)
            if problem:
                found[symptom.__name__] = problem
        new = [problem for name, problem in found.items() if name not in self.known]
        self.known = set(found)
        return new


def nothing_from_the_start(steps: Sequence[Step], window: int) -> str | None:
    """Every completion is cut off and all rewards in each group are equal. Three steps are enough to detect this."""
    recent = steps[-3:]
    if len(recent) < 3 or any(min(s["completions/clipped_ratio"], s["frac_reward_zero_std"]) < 1 for s in recent):
        return None
    return (
        "for 3 steps every completion was cut off at max_completion_length and all rewards in each group were "
        "equal, so nothing is learned. Raise max_completion_length, check that the model's chat template ends its "
        "turns with a stop token, or fine-tune first."
    )


def other_logprobs(steps: Sequence[Step], window: int) -> str | None:
    """Sampler and trainer disagree about the sampled tokens by more than rounding or staleness explains."""
    recent = [step["sampling/logprob_difference"] for step in steps[-3:] if "sampling/logprob_difference" in step]
    if len(recent) < 3 or min(recent) < 0.5:
        return None
    return (
        f"for 3 steps the logprobs of sampled tokens differed by {min(recent):.2f} nats or more between sampler and "
        "trainer (rounding alone gives about 0.02), so the gradient is not that of the policy. Try engine: "
        "transformers and attn_implementation: sdpa to find which of the two computes something else."
    )


def no_reward(steps: Sequence[Step], window: int) -> str | None:
    """The reward has been 0 for `window` steps."""
    recent = steps[-window:]
    if len(recent) < window or any(step["reward"] != 0 or step["reward_std"] != 0 for step in recent):
        return None
    return (
        f"the reward has been 0 for {window} steps, so there is nothing to learn from. Use easier problems, more "
        "num_generations, a larger max_completion_length, a system_prompt that shows the format, or fine-tune first."
    )


def no_signal(steps: Sequence[Step], window: int) -> str | None:
    """In nearly all groups, all rewards are equal."""
    recent = steps[-window:]
    if len(recent) < window or any(step["frac_reward_zero_std"] < 0.95 or step["reward"] == 0 for step in recent):
        return None
    return (
        f"in {window} steps nearly every group had equal rewards, so there is nothing to learn from. Remove problems "
        "that are always or never solved, or raise num_generations or temperature."
    )


def all_truncated(steps: Sequence[Step], window: int) -> str | None:
    """Nearly every completion is cut off."""
    recent = steps[-window:]
    if len(recent) < window or any(step["completions/clipped_ratio"] < 0.9 for step in recent):
        return None
    return (
        f"for {window} steps at least 90% of the completions were cut off at max_completion_length. Raise it, or "
        "check that the model's chat template ends its turns with a stop token."
    )


def entropy_collapse(steps: Sequence[Step], window: int) -> str | None:
    """The policy has become almost certain of every token."""
    entropies = [step["entropy"] for step in steps if "entropy" in step]
    if len(entropies) < window or max(entropies[-window:]) > 0.02:
        return None
    return (
        f"for {window} steps the entropy was below 0.02 nats per token: the policy no longer explores. Lower "
        "learning_rate, raise epsilon_high (clip-higher) or temperature, or add a KL penalty (beta)."
    )


def format_without_accuracy(steps: Sequence[Step], window: int) -> str | None:
    """The format reward rises while accuracy falls, from one window to the next."""
    if len(steps) < 2 * window or "rewards/format/mean" not in steps[-1] or "rewards/accuracy/mean" not in steps[-1]:
        return None

    def change(name: str) -> float:
        earlier, later = steps[:window], steps[window:]
        return sum(step[name] for step in later) / window - sum(step[name] for step in earlier) / window

    if change("rewards/format/mean") < 0.05 or change("rewards/accuracy/mean") > -0.02:
        return None
    return (
        f"over {2 * window} steps the format reward rose while accuracy fell: the model learns the format instead of "
        "the answer. Lower the weight of format in reward_weights."
    )


SYMPTOMS: tuple[Callable[[Sequence[Step], int], str | None], ...] = (
    nothing_from_the_start,
    other_logprobs,
    no_reward,
    no_signal,
    all_truncated,
    entropy_collapse,
    format_without_accuracy,
)
