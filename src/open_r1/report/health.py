"""Detects, from its metrics, that a GRPO run makes no progress, and says so in a sentence."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Step = Mapping[str, float]


@dataclass(frozen=True)
class Symptom:
    """Something that is wrong in each of the last `steps` steps (None: a window) that log `figure`. In `advice`,
    `{steps}` stands for their number and `{last}` for the last of them."""

    figure: str
    shows: Callable[[Step], bool]
    advice: str
    steps: int | None = None

    def found(self, steps: Sequence[Step], window: int) -> str | None:
        """The advice, if the run has this symptom."""
        count = self.steps or window
        recent = [step for step in steps if self.figure in step][-count:]
        if len(recent) < count or not all(map(self.shows, recent)):
            return None
        return self.advice.format(steps=count, last=recent[-1])


SYMPTOMS = (
    Symptom(
        "frac_reward_zero_std",
        lambda step: min(step["completions/clipped_ratio"], step["frac_reward_zero_std"]) >= 1,
        "for {steps} steps every completion was cut off at max_completion_length and all rewards in each group were "
        "equal, so nothing is learned. Raise max_completion_length, check that the model's chat template ends its "
        "turns with a stop token, or fine-tune first.",
        steps=3,
    ),
    Symptom(
        "sampling/logprob_difference",
        lambda step: step["sampling/logprob_difference"] >= 0.5,
        "for {steps} steps the logprobs of sampled tokens differed by at least 0.5 nats between sampler and trainer "
        "({last[sampling/logprob_difference]:.2f} in the last one; rounding alone gives about 0.02), so the gradient "
        "is not that of the policy. Try engine: transformers and attn_implementation: sdpa to find which of the two "
        "computes something else.",
        steps=3,
    ),
    Symptom(
        "reward",
        lambda step: step["reward"] == 0 and step["reward_std"] == 0,
        "the reward has been 0 for {steps} steps, so there is nothing to learn from. Use easier problems, more "
        "num_generations, a larger max_completion_length, a system_prompt that shows the format, or fine-tune first.",
    ),
    Symptom(
        "frac_reward_zero_std",
        lambda step: step["frac_reward_zero_std"] >= 0.95 and step["reward"] != 0,
        "in {steps} steps nearly every group had equal rewards, so there is nothing to learn from. Remove problems "
        "that are always or never solved, or raise num_generations or temperature.",
    ),
    Symptom(
        "completions/clipped_ratio",
        lambda step: step["completions/clipped_ratio"] >= 0.9,
        "for {steps} steps at least 90% of the completions were cut off at max_completion_length. Raise it, or check "
        "that the model's chat template ends its turns with a stop token.",
    ),
    Symptom(
        "entropy",
        lambda step: step["entropy"] <= 0.02,
        "for {steps} steps the entropy was at most 0.02 nats per token: the policy no longer explores. Lower "
        "learning_rate, raise epsilon_high (clip-higher) or temperature, or add a KL penalty (beta).",
    ),
)


class Health:
    """Looks at the last `window` steps. `check` returns each problem once, and again if it comes back."""

    def __init__(self, window: int = 10) -> None:
        self.steps: deque[Step] = deque(maxlen=2 * window)
        self.window = window
        self._known: set[int] = set()

    def check(self, logs: Step) -> list[str]:
        """New problems after the logs of another step. Logs without a reward, such as those of evaluations, are
        ignored."""
        if "reward" not in logs:
            return []
        self.steps.append(dict(logs))
        steps = list(self.steps)
        problems = [*(symptom.found(steps, self.window) for symptom in SYMPTOMS), _format_only(steps, self.window)]
        found = {number: problem for number, problem in enumerate(problems) if problem}
        new = [problem for number, problem in found.items() if number not in self._known]
        self._known = set(found)
        return new


def _format_only(steps: Sequence[Step], window: int) -> str | None:
    """The format reward rises while accuracy falls, from one window to the next."""
    form, accuracy = "rewards/format/mean", "rewards/accuracy/mean"
    if len(steps) < 2 * window or not {form, accuracy} <= steps[-1].keys():
        return None

    def change(name: str) -> float:
        return sum(step[name] for step in steps[window:]) / window - sum(step[name] for step in steps[:window]) / window

    if change(form) < 0.05 or change(accuracy) > -0.02:
        return None
    return (
        f"over {2 * window} steps the format reward rose while accuracy fell: the model learns the format instead of "
        "the answer. Lower the weight of format in reward_weights."
    )
