"""What surrounds a training run: its folder, resuming, trackers, the final model and its card."""

import logging
import os
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import IntervalStrategy
from transformers.utils.logging import disable_progress_bar

from open_r1.configs import DataConfig, ModelConfig, TrainConfig
from open_r1.options import default_hub_model_id, resolved_options
from open_r1.report.card import write_model_card
from open_r1.report.progress import ProgressCallback
from open_r1.report.recorder import RunRecorder
from open_r1.training.trainer import PackedTrainer, last_checkpoint

logger = logging.getLogger(__name__)


def needs_eval(args: TrainConfig) -> bool:
    """Whether the options ask for evaluation during training."""
    return args.eval_strategy != IntervalStrategy.NO or args.eval_on_start


class Run:
    """One training run in `args.output_dir`, begun or continued by the same command."""

    def __init__(self, task: str, script: DataConfig, args: TrainConfig, model: ModelConfig) -> None:
        self.task = task
        self.script = script
        self.args = args
        self.model = model
        self.config = resolved_options(script, args, model)
        self.recorder = RunRecorder(args.output_dir or ".", self.config, is_main=args.process_index == 0)
        self.callbacks: list[TrainerCallback] = [ProgressCallback(args.run_name or task)]
        _set_trackers(args)
        if args.push_to_hub and args.hub_model_id is None:
            args.hub_model_id = default_hub_model_id(model.model_name_or_path or "", task, args.hub_token)

    def train(self, trainer: PackedTrainer, tokenizer: PreTrainedTokenizerBase) -> None:
        """Trains from the last whole checkpoint (or `resume_from_checkpoint`), then writes the final model,
        tokenizer and card at the root of the output folder."""
        checkpoint = self.args.resume_from_checkpoint or last_checkpoint(trainer.output_dir)
        if checkpoint and trainer.is_world_process_zero():
            print(f"Continuing from {checkpoint}.")
        step = int(str(checkpoint).rsplit("-", 1)[-1]) if checkpoint else 0
        self.recorder.start(step)
        disable_progress_bar()  # of every file that a checkpoint writes
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._write_model(trainer, result.metrics)
        if self.args.push_to_hub:
            trainer.push_to_hub(dataset_name=self.script.dataset_name)

    def _write_model(self, trainer: PackedTrainer, metrics: dict[str, Any]) -> None:
        model: Any = trainer.model
        if self.args.bf16 and not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled:
            model.to(torch.bfloat16)
        trainer.save_model(str(trainer.output_dir))
        if trainer.is_world_process_zero():
            write_model_card(
                trainer.output_dir,
                base_model=self.model.model_name_or_path or "",
                task=self.task,
                dataset=_dataset_names(self.script),
                config=self.config,
                metrics=_last_metrics(trainer) | metrics,
            )


def _dataset_names(script: DataConfig) -> list[str]:
    if script.dataset_mixture:
        return [d["id"] for d in script.dataset_mixture["datasets"]]
    return [script.dataset_name] if script.dataset_name else []


def _last_metrics(trainer: PackedTrainer) -> dict[str, Any]:
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return steps[-1] if steps else {}


def _set_trackers(args: TrainConfig) -> None:
    for variable, value in (("WANDB_ENTITY", args.wandb_entity), ("WANDB_PROJECT", args.wandb_project)):
        if value:
            os.environ[variable] = value
