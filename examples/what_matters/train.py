"""One training run of the comparison: a setting, a seed, and a number of seconds, which is the same for all settings.

    python examples/what_matters/train.py cispo 1 runs/what-matters/cispo/seed-1 --seconds 75 \\
        --model HuggingFaceTB/SmolLM2-135M-Instruct --data runs/zero/sums/data/problems.jsonl

A round of 1,024 completions feeds four optimizer steps, so that the policy has moved when the later ones are taken and
clipping has something to clip. What follows the name of a setting is all in which it differs from `dapo`.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from open_r1 import GRPOConfig, GRPOTrainer
from open_r1.data.load import load_split
from open_r1.run.entry import exit_with_sentence

BASELINE = "dapo"
SETTINGS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "clip-higher": {"epsilon_high": 0.28},
    "no-correction": {"vllm_importance_sampling_correction": False},
    "group-32": {"num_generations": 32},
}
"""GSPO's clipping range is that of its paper (arXiv 2507.18071, section 5.1), CISPO's that of ScaleRL."""
COMMON: dict[str, Any] = {
    "loss_type": "dapo",
    "num_generations": 16,
    "per_device_train_batch_size": 256,
    "steps_per_generation": 4,
    "max_completion_length": 192,
    "learning_rate": 3e-5,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 5,
    "scale_rewards": "none",
    "gradient_checkpointing": False,
    "max_tokens_per_microbatch": 65536,
    "shuffle_dataset": False,
    "max_steps": 100_000,
    "save_strategy": "no",
    "report_to": "none",
}
UNCOUNTED_STEPS = 4
"""Steps of the first round, which also compile."""


class StopAfter(TrainerCallback):
    """Ends training `seconds` after the first `UNCOUNTED_STEPS` steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks at the clock."""
        if state.global_step <= UNCOUNTED_STEPS:
            self._began = time.monotonic()
        elif self._began is not None and time.monotonic() - self._began >= self.seconds:
            control.should_training_stop = True


def main() -> None:
    """Trains, and leaves the model in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="problems of examples/zero/tasks.py")
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--smoke", action="store_true", help="a few completions and steps")
    args = parser.parse_args()
    options = COMMON | {"seed": args.seed} | SETTINGS[args.setting]
    if args.smoke:
        size = 2 * options["num_generations"]
        options |= {"per_device_train_batch_size": size, "steps_per_generation": 2, "max_steps": 2}
        options |= {"max_completion_length": 8, "max_tokens_per_microbatch": 2048}
    trainer = GRPOTrainer(
        args.model,
        GRPOConfig(str(args.folder), **options),
        reward_funcs="accuracy",
        train_dataset=load_split(str(args.data)),
        callbacks=[StopAfter(args.seconds)],
        dataset_prompt_column="problem",
    )
    trainer.train()
    trainer.close()


if __name__ == "__main__":
    exit_with_sentence(main)
