"""The runs of the comparison, one after the other in one process: every setting and seed for the same seconds.

    python examples/what_matters/train.py runs/what-matters --model HuggingFaceTB/SmolLM2-135M-Instruct \\
        --data runs/what-matters/data --seconds 60 --seeds 1 2

All runs share one engine, so that its start and compilation are paid for once. A round of 1,024 completions feeds four
optimizer steps, so that the policy has moved when the later ones are taken and clipping has something to clip. What
follows the name of a setting is all in which it differs from `dapo`. `run.json` in a run's folder has the rate of right
answers of each held-out problem; runs that have it are skipped, and one that was stopped begins again.
"""

import argparse
import gc
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from open_r1 import GRPOConfig, GRPOTrainer
from open_r1.data.load import load_split
from open_r1.engine.native.engine import NativeEngine
from open_r1.engine.protocol import Engine
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
    "max_completion_length": 128,
    "learning_rate": 3e-5,
    "temperature": 0.7,
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
SAMPLES = 4
"""Answers to each held-out problem, at the temperature of training."""
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


def run(args: argparse.Namespace, setting: str, seed: int, folder: Path, engine: Engine | None) -> Engine:
    """Trains and evaluates; returns the engine, for the next run."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    options = COMMON | {"seed": seed} | SETTINGS[setting]
    if args.smoke:
        size = 2 * options["num_generations"]
        options |= {"per_device_train_batch_size": size, "steps_per_generation": 2, "max_steps": 2}
        options |= {"max_completion_length": 8, "max_tokens_per_microbatch": 2048}
    trainer = GRPOTrainer(
        args.model,
        GRPOConfig(str(folder), **options),
        reward_funcs="examples/zero/number.py:number",
        train_dataset=load_split(str(args.data / "problems.jsonl")),
        eval_dataset=load_split(str(args.data / "held_out.jsonl")),
        engine=engine,
        callbacks=[StopAfter(args.seconds)],
        dataset_prompt_column="problem",
    )
    trainer.train()
    rates = held_out_rates(trainer)
    result = {"rates": rates, "steps": trainer.state.global_step}
    (folder / "run.json").write_text(json.dumps(result), encoding="utf-8")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    print(f"{setting}, seed {seed}: {statistics.fmean(rates):.1%} after {result['steps']} steps", flush=True)
    return trainer.engine


def held_out_rates(trainer: GRPOTrainer) -> list[float]:
    """The share of right answers to each held-out problem, with the weights as they are now."""
    rows: Any = list(trainer.eval_dataset)
    with trainer.source.lent_engine():
        sampled = trainer.source.sampler.sample(rows, range(len(rows)), trainer.state.global_step, SAMPLES)
    return sampled.rewards.view(-1, SAMPLES).nan_to_num().mean(1).tolist()


def main() -> None:
    """Makes the runs that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR", help="a run is in DIR/SETTING/seed-N")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="what examples/zero/tasks.py wrote")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, for each run")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--smoke", action="store_true", help="a few completions and steps")
    args = parser.parse_args()
    engine: Engine | None = None
    for seed in args.seeds:
        for setting in args.settings:
            folder = args.root / setting / f"seed-{seed}"
            if not (folder / "run.json").is_file():
                engine = run(args, setting, seed, folder, engine)
                if not isinstance(engine, NativeEngine):
                    engine = None  # it writes with the policy of its own run
                gc.collect()  # the trainer refers to itself, and its weights are on the GPU


if __name__ == "__main__":
    exit_with_sentence(main)
