"""Rewards that a random model gets unevenly, and that can end the process at a given step."""

import os
import signal
import time
from pathlib import Path


def vowels(completions, **columns):
    """Share of vowels in what was written."""
    texts = [c[0]["content"] for c in completions]
    return [sum(t.count(v) for v in "aeiou") / (len(t) or 1) for t in texts]


def some_equal(completions, prompts, **columns):
    """As `vowels`, but for a third of the prompts every completion is worth the same."""
    equal = [" Hm. Hm." in p[-1]["content"] for p in prompts]
    return [0.5 if e else v for e, v in zip(equal, vowels(completions), strict=True)]


def deadly(completions, **columns):
    """As `vowels`, but kills the first process when the file named by KILL_AT has counted down to zero."""
    if os.environ.get("RANK", "0") != "0":
        return vowels(completions)
    counter = Path(os.environ["KILL_AT"])
    left = int(counter.read_text())
    counter.write_text(str(left - 1))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return vowels(completions)


def broken(completions, **columns):
    """A reward with a bug."""
    return [1 / 0 for _ in completions]


def sleeping(completions, **columns):
    """A reward that never comes back."""
    while True:
        time.sleep(60)


def broken_on_rank_1(completions, **columns):
    """A reward with a bug in one process only."""
    return [1 / 0] if os.environ.get("RANK") == "1" else vowels(completions)


def all_equal(completions, **columns):
    """No completion is better than another."""
    return [1.0 for _ in completions]


CALLS = []


def broken_at_step_3(completions, **columns):
    """As `vowels`, but with a bug that shows the third time."""
    CALLS.append(1)
    return vowels(completions) if len(CALLS) < 3 else [1 / 0]


def stopped_at_step_3(completions, **columns):
    """As `vowels`, but the last rank is sent the signals named by STOP the third time."""
    CALLS.append(1)
    last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
    if len(CALLS) == 3 and last and "STOP" in os.environ:
        for name in os.environ["STOP"].split():
            os.kill(os.getpid(), signal.Signals[name])
    return vowels(completions)


FETCHES = []


def noting_fetches(completions, **columns):
    """As `vowels`, and writes what ZeRO-3 has fetched since the first call: kinds of modules and how often, a line."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    if not CALLS:
        fetch = Coordinator.fetch_sub_module

        def noted(self, module, forward):
            FETCHES.append(type(module).__name__)
            return fetch(self, module, forward)

        Coordinator.fetch_sub_module = noted
    elif os.environ["RANK"] == "0":
        counts = [f"{kind} {FETCHES.count(kind)}\n" for kind in sorted(set(FETCHES))]
        Path(os.environ["FETCHES"]).write_text("".join(counts))
    CALLS.append(1)
    return vowels(completions)
