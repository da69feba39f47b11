"""Shows the progress of training: a live bar on a terminal, one plain line per log elsewhere."""

import atexit
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from transformers import TrainerCallback

from open_r1.report.figures import clock

RECENT_STEPS = 20
"""Steps that the estimate of time left looks back on; completions of early steps may be much shorter."""

_GRPO_LABELS = {
    "reward": "reward",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut off",
    "frac_reward_zero_std": "no signal",
    "entropy": "entropy",
    "kl": "kl",
}
_SHARES = {"completions/clipped_ratio", "frac_reward_zero_std"}


class ProgressCallback(TrainerCallback):
    """Shows stage, step, loss or reward, completion length, tokens per second and time left.

    `task` names what is being trained (`sft`, `grpo`, a stage of the demo). If the output is not a terminal, it
    prints a line `every` so many steps, or, below 1, after that share of the steps. Only the main process prints.
    """

    def __init__(self, task: str, console: Console | None = None, every: float = 1) -> None:
        self.task = task
        self.every = every
        self.console = console or Console()
        self._live: Progress | None = None
        self._bar: TaskID | None = None
        self._steps: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS + 1)
        self._evaluated = 0

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self.close()
        self._steps.clear()
        self._steps.append((state.global_step, time.monotonic()))
        if not self.console.is_terminal:
            return
        self._live = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[cyan]{task.fields[metrics]}", markup=True),
            TextColumn("[dim]{task.fields[left]}"),
            console=self.console,
            refresh_per_second=4,
        )
        self._bar = self._live.add_task(
            self.task, total=state.max_steps, completed=state.global_step, metrics="", left=""
        )
        self._live.start()
        atexit.register(self.close)  # an exception passes by `on_train_end`; the cursor must come back

    def on_step_end(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self._steps.append((state.global_step, time.monotonic()))
        self._update(completed=state.global_step, left=self._time_left(state.max_steps))

    def on_prediction_step(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self._evaluated += 1
        self._update(left=f"evaluating, batch {self._evaluated}")

    def on_evaluate(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self._evaluated = 0
        self._update(left=self._time_left(state.max_steps))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if "train_runtime" in logs:
            self._print(f"finished {state.global_step} steps in {clock(logs['train_runtime'])}")
        elif any(key.startswith("eval_") for key in logs):
            shown = [f"{key} {_number(logs[key])}" for key in logs if key != "epoch"]
            place = f"step {state.global_step}/{state.max_steps}  " if state.max_steps else ""  # else: not in training
            self._print(place + "  ".join(shown))
        elif self._live:
            self._update(metrics="  ".join(headline(logs)))
        elif state.global_step % self._interval(state.max_steps) == 0:
            parts = [f"step {state.global_step}/{state.max_steps}", *summary(logs)]
            self._print("  ".join([*parts, self._time_left(state.max_steps)]).rstrip())

    def on_train_end(self, args, state, control, **kwargs):
        self._update(left="")
        self.close()

    def close(self) -> None:
        """Removes the live bar and releases the terminal. May be called at any time, also twice."""
        if self._live:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)

    def _update(self, **fields: Any) -> None:
        if self._live and self._bar is not None:
            self._live.update(self._bar, **fields)

    def _print(self, line: str) -> None:
        self.console.print(f"{self.task}  {line}", soft_wrap=True, markup=False, highlight=False)

    def _interval(self, max_steps: int) -> int:
        return max(1, math.ceil(self.every * max_steps) if self.every < 1 else int(self.every))

    def _time_left(self, max_steps: int) -> str:
        if not self._steps:
            return ""
        (first, since), (last, now) = self._steps[0], self._steps[-1]
        if last == first or last >= max_steps:
            return ""
        return f"{clock((now - since) / (last - first) * (max_steps - last))} left"


def headline(logs: Mapping[str, Any]) -> list[str]:
    """The two to four figures to watch: loss for SFT; reward, accuracy and length for GRPO; tokens per second."""
    if "reward" not in logs:
        return _labelled(logs, {"loss": "loss"}) + _speed(logs)
    accuracy = "rewards/accuracy/mean"
    labels = {"reward": "reward", accuracy: "accuracy", "completions/mean_length": "length"}
    if logs.get(accuracy) == logs["reward"]:  # accuracy is the only reward
        del labels[accuracy]
    return _labelled(logs, labels) + _speed(logs)


def summary(logs: Mapping[str, Any]) -> list[str]:
    """All values worth printing in a log file, in the same order for every step."""
    if "reward" not in logs:
        labels = {"loss": "loss", "grad_norm": "grad norm", "learning_rate": "learning rate", "entropy": "entropy"}
    else:
        names = [key.split("/")[1] for key in logs if key.startswith("rewards/") and key.endswith("/mean")]
        rewards = {f"rewards/{name}/mean": name for name in names}
        labels = {"reward": "reward", **rewards, **_GRPO_LABELS, "grad_norm": "grad norm"}
    return _labelled(logs, labels) + _speed(logs)


def _labelled(logs: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    return [
        f"{label} {logs[key]:.0%}" if key in _SHARES else f"{label} {_number(logs[key])}"
        for key, label in labels.items()
        if isinstance(logs.get(key), int | float)
    ]


def _speed(logs: Mapping[str, Any]) -> list[str]:
    speed = logs.get("tokens_per_second")
    return [f"{speed:,.0f} tokens/s"] if isinstance(speed, int | float) else []


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
