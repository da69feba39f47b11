"""unsloth's case of `training.py`, in a process of its own; the argument is its folder (see `unsloth_process.py`).

unsloth takes every id of the padding token for padding, in the model's inputs and in the loss. The tokenizer that it
loads may have one that is drawn here, so the trainer gets the benchmark's own, whose padding (0) is never drawn.
"""

# ruff: noqa: I001  # unsloth must be imported before what it patches
import unsloth  # noqa: F401

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from measure import StepTimer, build_tokenizer
from replayed_batch import Batch, ReplayedTRL, replayed, rollout_function
from trl import GRPOConfig, GRPOTrainer
from unsloth_process import run_worker


class Theirs(ReplayedTRL, GRPOTrainer):
    """unsloth's rewrite of TRL's trainer with the clock."""


def build_trainer(case: dict[str, Any], model: Any, tokenizer: Any, timer: StepTimer) -> GRPOTrainer:
    """A trainer that is given the case's completions and rewards."""
    batch = Batch(**case["batch"])
    trainer = Theirs(
        model,
        reward_funcs=[replayed],
        args=GRPOConfig(**case["options"]),
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(batch.prompts))]}),
        processing_class=build_tokenizer(),
        rollout_func=rollout_function(batch),
        callbacks=[timer],
    )
    trainer.timer, trainer.tokens = timer, batch.tokens
    return trainer


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]), build_trainer)
