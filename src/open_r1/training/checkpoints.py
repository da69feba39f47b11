"""Checkpoints that are whole or absent, on any backend, and the final model.

A checkpoint is what its backend needs to continue (DeepSpeed's and FSDP2's parts, one per rank), and beside it, like
the final model, a normal Hugging Face folder.
"""

import json
import math
import pickle
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import Trainer, TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from open_r1.errors import UserError
from open_r1.internals.transformers import load_weights, push_checkpoint, write_folder
from open_r1.training import backends
from open_r1.training.checkpoint_files import CHECKSUMS, publish, read_state, saving, seal
from open_r1.training.policy_weights import whole_state_dict
from open_r1.training.saveable import save_weights_alone

if TYPE_CHECKING:
    from open_r1.training.packed_trainer import PackedTrainer

STAGING = ".staging"
NOT_OF_THE_MODEL = (
    *("trainer_state", "optimizer", "scheduler", "rng_state", "training_args", "open_r1-rank", "latest"),
    CHECKSUMS,
)
"""How files at the root of a checkpoint begin that a final model does not have."""


class Checkpointer:
    """Saves and resumes `trainer`, which says what it must keep (`checkpoint_state`, `load_checkpoint_state`), how
    long it runs (`total_steps`), and which options give its state a meaning (`resume_settings`)."""

    def __init__(self, trainer: "PackedTrainer") -> None:
        self.trainer = trainer
        self.saving = False
        self._finished_in: Path | None = None

    @property
    def staging(self) -> Path:
        """Where a checkpoint is written before it gets its name."""
        return self.trainer.output_dir / STAGING

    def remove_leftovers(self) -> None:
        """Removes what a kill left half written."""
        if self.trainer.args.should_save:
            shutil.rmtree(self.staging, ignore_errors=True)

    # Resuming

    def load(self, folder: Path) -> tuple[TrainerState, dict[str, Any]]:
        """Takes back what a checkpoint holds beside Trainer's own state, unless the run ended there; nothing on the
        disk is changed. Returns Trainer's state, and the options that the checkpoint was made with (empty if it does
        not know). Raises UserError if this run cannot continue from it."""
        trainer = self.trainer
        state = read_state(folder)
        mine, first = (folder / f"open_r1-rank{rank}.pt" for rank in (trainer.rank, 0))
        path = mine if mine.exists() else first
        try:
            saved = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): delete {folder} to continue from the previous checkpoint."
            ) from error
        if state.global_step < trainer.total_steps():
            self._check_can_continue(folder, saved)
            trainer.load_checkpoint_state(saved)
        return state, saved.get("config", {})

    def finish(self, checkpoint: Path, state: TrainerState) -> TrainOutput:
        """What `train` gives for a checkpoint that needs no more steps (Trainer itself would run one more)."""
        trainer = self.trainer
        best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
        if trainer.is_wrapped:
            self._finished_in = Path(best or checkpoint)
        else:
            load_weights(trainer, best or str(checkpoint))
        trainer.state = state
        return TrainOutput(state.global_step, math.nan, {})

    def _check_can_continue(self, folder: Path, saved: dict[str, Any]) -> None:
        trainer = self.trainer
        instead = f"start a new run from its weights (model_name_or_path {folder}, another output_dir)."
        if not (folder / "scheduler.pt").exists():
            raise UserError(
                f"{folder} has only the model (save_only_model), so training cannot continue from it: {instead}"
            )
        before, now = (backends.family(backend) for backend in (saved["backend"], trainer.backend))
        if before != now:
            raise UserError(
                f"{folder} was written by {backends.DESCRIPTIONS[saved['backend']]}, but this is "
                f"{backends.DESCRIPTIONS[trainer.backend]}, which cannot read its optimizer: launch as before, or "
                f"{instead}"
            )
        if trainer.backend.startswith("zero") and saved["world_size"] != trainer.world_size:
            raise UserError(
                f"{folder} has DeepSpeed's shards of {saved['world_size']} processes, but now there are "
                f"{trainer.world_size}: continue with {saved['world_size']} (DDP and FSDP2 can change their number), "
                f"or {instead}"
            )
        check_same_settings(folder.name, saved.get("settings", {}), trainer.resume_settings(), instead)

    # Saving

    def save_model(self, output_dir: str | None, internal_call: bool) -> None:
        """Writes a Hugging Face folder; collective. In bfloat16 if that is what was computed in, except where a
        checkpoint continues from these weights."""
        trainer = self.trainer
        folder = Path(output_dir or str(trainer.args.output_dir))
        half = torch.bfloat16 if trainer.args.bf16 else None
        if not trainer.is_wrapped and (half is None or self.saving):
            Trainer.save_model(trainer, output_dir, internal_call)
            return
        if self._finished_in is not None:
            if trainer.args.should_save:
                _copy_model(self._finished_in, folder)
        else:
            whole: Any = trainer.accelerator.unwrap_model(trainer.model)
            state = whole_state_dict(whole, half, keep=trainer.args.should_save)
            if trainer.args.should_save:
                self.write_folder(str(folder), state)
                _set_dtype(folder, half)
        if trainer.args.push_to_hub and not internal_call:
            trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)

    def write_folder(self, folder: str | None, state_dict: dict[str, torch.Tensor] | None) -> None:
        """Writes model, tokenizer and arguments; the weights alone if anything beside them cannot be written."""
        trainer: Any = self.trainer
        try:
            write_folder(trainer, folder, state_dict)
        except (OSError, RuntimeError, SafetensorError):
            raise  # of the disk, see `saving`
        except Exception as error:
            path = trainer.output_dir / "model.safetensors"
            save_weights_alone(trainer.accelerator.unwrap_model(trainer.model), state_dict, path)
            raise UserError(
                f"{folder} could not be written ({error}); the weights of step {trainer.state.global_step} are in "
                f"{path}. Copy the configuration and tokenizer of the trained model into that folder."
            ) from error

    def save(self, write: Callable[[], None]) -> None:
        """Has Trainer `write` a checkpoint into a staging folder and renames it, so that it is whole or not there."""
        trainer = self.trainer
        trainer.watchdog.beat("checkpoint")
        name = f"checkpoint-{trainer.state.global_step}"
        staged, final = self.staging / name, trainer.output_dir / name
        self.saving = True
        try:
            with self._explained(name):
                write()
                torch.save(trainer.checkpoint_state(), staged / f"open_r1-rank{trainer.rank}.pt")
        finally:
            self.saving = False
        trainer.ranks.wait()
        if trainer.state.best_model_checkpoint == str(staged):
            trainer.state.best_model_checkpoint = str(final)
        if trainer.args.should_save:
            with self._explained(name):
                trainer.state.save_to_json(str(staged / "trainer_state.json"))
                seal(staged)
                publish(staged, final)
            rotate_checkpoints(
                output_dir=str(trainer.output_dir),
                save_total_limit=trainer.args.save_total_limit,
                best_model_checkpoint=trainer.state.best_model_checkpoint,
                use_mtime=False,
            )
            self.remove_leftovers()
        trainer.ranks.wait()
        if trainer.args.push_to_hub:
            push_checkpoint(trainer, str(final))

    def _explained(self, name: str) -> AbstractContextManager[None]:
        remedy = "run the same command: it continues from the last complete checkpoint."
        return saving(self.trainer.output_dir, name, remedy)


def check_same_settings(what: str, before: Mapping[str, Any], now: Mapping[str, Any], instead: str) -> None:
    """Raises UserError that names each setting of `before` that has another value in `now`."""
    changed = [
        f"{name} was {old!r} and is now {now.get(name)!r}" for name, old in before.items() if now.get(name) != old
    ]
    if changed:
        raise UserError(
            f"{what} belongs to other settings ({'; '.join(changed)}): continue with the same settings, or {instead}"
        )


def _copy_model(checkpoint: Path, folder: Path) -> None:
    for path in checkpoint.iterdir():
        if path.is_file() and not path.name.startswith(NOT_OF_THE_MODEL) and path.suffix != ".py":
            shutil.copy(path, folder)


def _set_dtype(folder: Path, dtype: torch.dtype | None) -> None:
    """In config.json, where `save_pretrained` notes the dtype of the model that trains."""
    path = folder / "config.json"
    if dtype is not None and path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
