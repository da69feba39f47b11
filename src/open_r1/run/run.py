"""Manages a training run: its folder, resuming, trackers, the final model and its card."""

import logging
import os
import shlex
from pathlib import Path
from typing import IO, Any

from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, TrainOutput
from transformers.utils.logging import disable_progress_bar

from open_r1.configs import DataConfig, ModelConfig, TrainConfig
from open_r1.errors import Interrupted, UserError
from open_r1.files import check_writable, lock_folder
from open_r1.options import default_hub_model_id, resolved_options
from open_r1.report.card import write_model_card
from open_r1.report.progress import ProgressCallback
from open_r1.report.recorder import RunRecorder, read_config
from open_r1.report.trackers import tracker_problem
from open_r1.run.benchmarks import Benchmarks
from open_r1.run.checks import check_same_model, check_vocabulary, options_without_effect, room_warning
from open_r1.run.first_process import by_first_process
from open_r1.run.push_revision import PushRevision
from open_r1.training.backends import describe_training
from open_r1.training.checkpoint_files import choose_checkpoint, last_checkpoint, saving
from open_r1.training.interruption import StopSignals
from open_r1.training.optimizers import why_unusable
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.saveable import check_saveable

logger = logging.getLogger(__name__)

USERS_WANDB_DIR = os.environ.get("WANDB_DIR")


def needs_eval(args: TrainConfig) -> bool:
    """Whether the options ask for evaluation during training."""
    return args.eval_strategy != IntervalStrategy.NO or args.eval_on_start


class Run:
    """One training run in `args.output_dir`, started or resumed by the same command."""

    def __init__(self, task: str, script: DataConfig, args: TrainConfig, model: ModelConfig) -> None:
        self.task = task
        self.script = script
        self.args = args
        self.model = model
        self.config = resolved_options(script, args, model)
        if problem := why_unusable(args):
            raise UserError(problem)
        self.stop_signals = StopSignals()
        self.output_dir = Path(args.output_dir or ".")
        self._lock: IO[str] | None = None
        by_first_process(args.process_index, self._lock_folder)
        self._unlock()  # until training starts: a failure before that must leave no lock
        if args.process_index == 0:
            for warning in options_without_effect(args):
                logger.warning(warning)
        self.recorder = RunRecorder(self.output_dir, self.config, is_main=args.process_index == 0)
        self.callbacks: list[TrainerCallback] = [ProgressCallback(args.run_name or task, every=args.logging_steps)]
        _set_trackers(args)
        if (args.push_to_hub or args.callbacks) and args.hub_model_id is None:
            args.hub_model_id = default_hub_model_id(model.model_name_or_path or "", task, args.hub_token)
        if args.callbacks:
            self.callbacks.append(PushRevision(args))

    def train(
        self, trainer: PackedTrainer, benchmarks: Benchmarks, resume_from_checkpoint: str | bool | None = None
    ) -> TrainOutput:
        """Trains from the last complete checkpoint, or from `resume_from_checkpoint` (default: that of the options).
        Then writes the final model, tokenizer and card at the root of the output folder, with the results of
        `benchmarks`. Raises Interrupted if a signal stopped it before."""
        named = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        if named is False:
            raise UserError(
                "resume_from_checkpoint is False, but runs continue automatically: to start over, give another "
                "output_dir, or delete that folder."
            )
        by_first_process(self.args.process_index, self._lock_folder)
        self.stop_signals.listen()
        try:
            return self._train(trainer, benchmarks, None if named in (None, True, "true", "True") else str(named))
        except Interrupted:
            if self.args.world_size > 1:
                self.stop_signals.ignore()  # launchers send SIGTERM once the first rank has exited
            raise
        except KeyboardInterrupt:
            last = last_checkpoint(self.output_dir)
            outcome = f"continues from {last}" if last else "starts over, because there was no checkpoint yet"
            raise KeyboardInterrupt(f"Stopped at once. The same command {outcome}.") from None
        finally:
            self.stop_signals.restore()
            self._unlock()

    def _lock_folder(self) -> None:
        for folder in (self.output_dir, self.output_dir / "run"):
            check_writable(folder)
        problem = (
            f"output_dir is {self.output_dir}, where another training run is active: give another output_dir, or "
            "wait until it ends."
        )
        self._lock = lock_folder(self.output_dir / "run", problem)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _train(self, trainer: PackedTrainer, benchmarks: Benchmarks, named: str | None) -> TrainOutput:
        tokenizer: Any = trainer.processing_class
        check_vocabulary(trainer.model, tokenizer)
        by_first_process(self.args.process_index, lambda: self._check_saveable(trainer.model, tokenizer))
        self._print(describe_training(trainer.accelerator, self.args.sequence_parallel_size))
        checkpoint = by_first_process(self.args.process_index, lambda: choose_checkpoint(self.output_dir, named))
        if checkpoint:
            state, earlier = trainer.checkpointer.load(checkpoint)
            earlier = earlier or read_config(self.recorder.run_dir)
            check_same_model(self.output_dir, earlier, self.config)
            self._print(self._describe_resume(checkpoint, state.global_step, trainer.total_steps()))
            self.recorder.start(state.global_step, state.log_history, earlier)
        else:
            if (self.recorder.run_dir / "metrics.jsonl").exists():
                self._print(f"There is no checkpoint in {self.output_dir}, so training starts over.")
            self.recorder.start(0)
        disable_progress_bar()  # otherwise drawn for every file of a checkpoint
        result = PackedTrainer.train(trainer, resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._write_model(trainer, benchmarks, result.metrics)
        if self.args.push_to_hub:
            trainer.push_to_hub()
        folder = shlex.quote(str(self.output_dir))
        command = f"report {folder}/evaluation" if benchmarks.loaded else f"evaluate --model {folder} --tasks math_500"
        self._print(f"The model is in {self.output_dir}. Next: open-r1 {command}")
        return result

    def _describe_resume(self, checkpoint: Path, step: int, total: int) -> str:
        if step < total:
            return f"Continuing from {checkpoint}, step {step} of {total}."
        longer = "max_steps" if self.args.max_steps > 0 else "num_train_epochs"
        return (
            f"This run is finished: all its {total} steps are done, and its model is in {self.output_dir}. To train "
            f"further, raise {longer}; to start over, give another output_dir."
        )

    def _print(self, text: str) -> None:
        if self.args.process_index == 0:
            print(text, flush=True)

    def _check_saveable(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
        trained = sum(size for size, trains in sizes if trains)
        saved = trained if self.model.use_peft else sum(size for size, _ in sizes)
        if warning := room_warning(self.args, saved, trained):
            logger.warning(warning)
        check_saveable(str(self.model.model_name_or_path), model.config, model.generation_config, tokenizer)

    def _write_model(self, trainer: PackedTrainer, benchmarks: Benchmarks, metrics: dict[str, Any]) -> None:
        with saving(self.output_dir, "the trained model", "run the same command again."):
            trainer.save_model(str(self.output_dir))
        figures = benchmarks.final()
        last = next((line for line in reversed(trainer.state.log_history) if "loss" in line), {})
        if trainer.is_world_process_zero():
            with saving(self.output_dir, "README.md, the model's card,", "run the same command: the model is saved."):
                write_model_card(
                    self.output_dir,
                    base_model=self.model.model_name_or_path or "",
                    task=self.task,
                    dataset=_dataset_names(self.script),
                    config=self.config,
                    metrics=last | metrics | figures,
                )


def _dataset_names(script: DataConfig) -> list[str]:
    if script.dataset_mixture:
        return [d["id"] for d in script.dataset_mixture["datasets"]]
    return [script.dataset_name] if script.dataset_name else []


def _set_trackers(args: TrainConfig) -> None:
    if problem := tracker_problem(args.report_to):
        raise UserError(problem)
    for variable, value in (("WANDB_ENTITY", args.wandb_entity), ("WANDB_PROJECT", args.wandb_project)):
        if value:
            os.environ[variable] = value
    if "wandb" in (args.report_to or ()):
        os.environ["WANDB_DIR"] = USERS_WANDB_DIR or str(args.output_dir)
