"""Checkpoints that are complete or absent, on any backend, and the final model.

A checkpoint has what its backend needs to continue (with DeepSpeed and FSDP2, one shard per rank). Like the final
model, it is also a normal Hugging Face folder.
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
"""Prefixes of files at the root of a checkpoint that a final model does not have."""


class Checkpointer:
    """Saves and resumes `trainer`. The trainer defines its state (`checkpoint_state`, `load_checkpoint_state`), its
    length (`total_steps`), and the options that its state depends on (`resume_settings`)."""

    def __init__(self, trainer: "PackedTrainer") -> None:
        self.trainer = trainer
        self.saving = False
        self._finished_in: Path | None = None

    @property
    def staging(self) -> Path:
        """The folder in which a checkpoint is written before it gets its final name."""
        return self.trainer.output_dir / STAGING

    def remove_leftovers(self) -> None:
        """Removes folders that a kill left incomplete."""
        if self.trainer.args.should_save:
            shutil.rmtree(self.staging, ignore_errors=True)

    # Resuming

    def load(self, folder: Path) -> tuple[TrainerState, dict[str, Any]]:
        """Loads what a checkpoint has in addition to Trainer's own state, unless the run ended there. Does not change
        the disk. Returns Trainer's state, and the options of the checkpoint (empty if they are unknown). Raises
        UserError if this run cannot continue from it."""
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
        """The result of `train` for a checkpoint that needs no more steps (Trainer itself would run one more)."""
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
        """Writes a Hugging Face folder; collective. The weights are in bfloat16 if that was the compute precision,
        unless a checkpoint continues from them."""
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
        """Writes model, tokenizer and arguments. If anything else fails, it still writes the weights."""
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
        """Lets Trainer `write` a checkpoint into a staging folder and renames it, so that it is complete or absent."""
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
    """Corrects the dtype in config.json, where `save_pretrained` writes that of the trained model."""
    path = folder / "config.json"
    if dtype is not None and path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
