"""unsloth's case of `sft.py`, in a process of its own; the argument is its folder (see `unsloth_process.py`)."""

# ruff: noqa: I001  # unsloth must be imported before what it patches
import unsloth  # noqa: F401

import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from measure import StepTimer
from trl import SFTConfig, SFTTrainer
from unsloth_process import run_worker


class Theirs(SFTTrainer):
    """Tells the timer how many tokens a micro-batch has, without what pads the end of its row."""

    timer: StepTimer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As it is, after counting."""
        lengths = inputs.get("packed_seq_lengths", [inputs["input_ids"].numel()])
        self.timer.tokens += int(sum(lengths))
        self.timer.computed = self.timer.tokens
        return super().training_step(model, inputs, num_items_in_batch)


def build_trainer(case: dict[str, Any], model: Any, tokenizer: Any, timer: StepTimer) -> SFTTrainer:
    """A trainer with packed rows, one a micro-batch."""
    trainer = Theirs(
        model,
        args=SFTConfig(**case["options"]),
        train_dataset=Dataset.from_dict({"input_ids": case["documents"]}),
        processing_class=tokenizer,
        callbacks=[timer],
    )
    trainer.timer = timer
    return trainer


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]), build_trainer)
