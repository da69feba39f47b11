"""What surrounds a training run: its folder, resuming, trackers, the final model and its card."""

import logging
import os
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy
from transformers.utils.logging import disable_progress_bar

from open_r1.configs import DataConfig, ModelConfig, TrainConfig
from open_r1.errors import Interrupted, UserError
from open_r1.launch.nodes import claim_folder
from open_r1.options import default_hub_model_id, resolved_options
from open_r1.report.card import write_model_card
from open_r1.report.progress import ProgressCallback
from open_r1.report.recorder import RunRecorder
from open_r1.report.trackers import tracker_problem
from open_r1.run.benchmarks import Benchmarks
from open_r1.run.first_process import by_first_process
from open_r1.training.backends import describe_training
from open_r1.training.checkpoints import last_checkpoint
from open_r1.training.interruption import StopSignals
from open_r1.training.trainer import PackedTrainer

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
        self.stop_signals = StopSignals()
        by_first_process(args.process_index, lambda: claim_folder(Path(args.output_dir or ".")))
        self.recorder = RunRecorder(args.output_dir or ".", self.config, is_main=args.process_index == 0)
        self.callbacks: list[TrainerCallback] = [ProgressCallback(args.run_name or task, every=args.logging_steps)]
        _set_trackers(args)
        if args.push_to_hub and args.hub_model_id is None:
            args.hub_model_id = default_hub_model_id(model.model_name_or_path or "", task, args.hub_token)

    def train(self, trainer: PackedTrainer, tokenizer: PreTrainedTokenizerBase, benchmarks: Benchmarks) -> None:
        """Trains from the last whole checkpoint (or `resume_from_checkpoint`), then writes the final model,
        tokenizer and card at the root of the output folder, with what `benchmarks` find. Raises Interrupted if a
        signal stopped it before."""
        self.stop_signals.listen()
        try:
            self._train(trainer, tokenizer, benchmarks)
        except Interrupted:
            self.stop_signals.ignore()  # launchers send SIGTERM when the first rank has left
            raise
        finally:
            self.stop_signals.restore()

    def _train(self, trainer: PackedTrainer, tokenizer: PreTrainedTokenizerBase, benchmarks: Benchmarks) -> None:
        check_vocabulary(trainer.model, tokenizer)
        if trainer.is_world_process_zero():
            print(describe_training(trainer.accelerator))
        named = self.args.resume_from_checkpoint
        checkpoint = last_checkpoint(trainer.output_dir) if named in (None, True, "true", "True") else named
        step = checkpoint_step(checkpoint) if checkpoint else 0
        if checkpoint:
            check_continuation(trainer.output_dir, checkpoint, self.config)
            if trainer.is_world_process_zero():
                print(f"Continuing from {checkpoint}.")
        self.recorder.start(step)
        disable_progress_bar()  # of every file that a checkpoint writes
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._write_model(trainer, benchmarks, result.metrics)
        if self.args.push_to_hub:
            trainer.push_to_hub()

    def _write_model(self, trainer: PackedTrainer, benchmarks: Benchmarks, metrics: dict[str, Any]) -> None:
        trainer.save_model(str(trainer.output_dir))
        figures = benchmarks.final()
        if trainer.is_world_process_zero():
            write_model_card(
                trainer.output_dir,
                base_model=self.model.model_name_or_path or "",
                task=self.task,
                dataset=_dataset_names(self.script),
                config=self.config,
                metrics=_last_metrics(trainer) | metrics | figures,
            )


def checkpoint_step(checkpoint: str | Path) -> int:
    """Steps behind a checkpoint. Raises UserError if it is not one."""
    path = Path(checkpoint) / TRAINER_STATE_NAME
    try:
        return TrainerState.load_from_json(str(path)).global_step
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{checkpoint} is no whole checkpoint ({error}): give a folder checkpoint-N as resume_from_checkpoint, or "
            "delete the folder to continue from the one before."
        ) from error


def check_continuation(output_dir: Path, checkpoint: str | Path, config: dict[str, Any]) -> None:
    """Raises UserError if the checkpoint lacks the optimizer, or belongs to a run of another model."""
    if not (Path(checkpoint) / "scheduler.pt").exists():
        raise UserError(
            f"{checkpoint} holds the model only (save_only_model), so training cannot continue from it: give another "
            f"output_dir, with model_name_or_path {checkpoint} if you want to start from these weights."
        )
    earlier_file = output_dir / "run" / "config.yaml"
    earlier = yaml.safe_load(earlier_file.read_text(encoding="utf-8")) if earlier_file.exists() else {}
    for name in ("model_name_or_path", "use_peft", "lora_r"):
        if name in earlier and earlier[name] != config.get(name):
            raise UserError(
                f"output_dir {output_dir} holds a run with {name} {earlier[name]!r}, and now it is "
                f"{config.get(name)!r}: give another output_dir, or delete that folder to start over."
            )


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError if the tokenizer has more tokens than the model has embeddings."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"model_name_or_path: the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings, so they "
            "do not belong together: use the tokenizer that came with the model."
        )


def _dataset_names(script: DataConfig) -> list[str]:
    if script.dataset_mixture:
        return [d["id"] for d in script.dataset_mixture["datasets"]]
    return [script.dataset_name] if script.dataset_name else []


def _last_metrics(trainer: PackedTrainer) -> dict[str, Any]:
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return steps[-1] if steps else {}


def _set_trackers(args: TrainConfig) -> None:
    if problem := tracker_problem(args.report_to):
        raise UserError(problem)
    for variable, value in (("WANDB_ENTITY", args.wandb_entity), ("WANDB_PROJECT", args.wandb_project)):
        if value:
            os.environ[variable] = value
