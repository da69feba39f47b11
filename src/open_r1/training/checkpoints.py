"""The part of the trainers that starts on a backend, saves, and survives kills by checkpoints that are whole or absent.

A checkpoint is what its backend needs to continue (DeepSpeed's and FSDP2's parts, one a rank), and beside it, like the
final model, a normal Hugging Face folder.
"""

import json
import math
import pickle
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Trainer, TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from open_r1.errors import UserError
from open_r1.training import backends
from open_r1.training.checkpoint_files import CHECKSUMS, publish, read_state, saving, seal
from open_r1.training.policy_weights import whole_state_dict
from open_r1.training.saveable import save_weights_alone
from open_r1.training.watchdog import Watchdog

STAGING = ".staging"
NOT_OF_THE_MODEL = (
    *("trainer_state", "optimizer", "scheduler", "rng_state", "training_args", "open_r1-rank", "latest"),
    CHECKSUMS,
)
"""How files at the root of a checkpoint begin that a final model does not have."""


class CheckpointedTrainer(Trainer):
    """`transformers.Trainer` with staged checkpoints, on any backend. `output_dir` and `watchdog` are set before its
    own `__init__`."""

    output_dir: Path
    watchdog: Watchdog
    _saving = False
    _finished_in: Path | None = None

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer's, on the backend that was asked for: `self.backend` says which."""
        only_model, self.args.save_only_model = (
            self.args.save_only_model,
            False,
        )  # which `save_model` can on any backend
        try:
            backends.allow_fsdp_on_cpu()
            super().create_accelerator_and_postprocess()
        except ValueError as error:
            raise UserError(f"accelerate cannot start with these options: {error}") from error
        finally:
            self.args.save_only_model = only_model
        self.backend = backends.check_backend(self.accelerator)
        self.is_wrapped = self.backend not in ("single", "ddp")
        if self.is_wrapped and only_model and self.args.load_best_model_at_end:
            raise UserError("load_best_model_at_end needs save_only_model false with DeepSpeed and FSDP.")
        if self.backend == "fsdp2":
            backends.reduce_in_float32(self.accelerator)

    def resume_settings(self) -> dict[str, Any]:
        """Options, by name, that give the saved state its meaning: a run that continues must have the same."""
        raise NotImplementedError

    def checkpoint_state(self) -> dict[str, Any]:
        """What this rank must keep beside Trainer's own state to continue exactly."""
        return {"world_size": self.world_size, "backend": self.backend, "settings": self.resume_settings()}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Takes back what `checkpoint_state` returned. Raises UserError if this run cannot continue with it."""
        raise NotImplementedError

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        raise NotImplementedError

    def load_checkpoint(self, folder: Path) -> tuple[TrainerState, dict[str, Any]]:
        """Takes back what a checkpoint holds beside Trainer's own state, unless the run ended there; nothing on the
        disk is changed. Returns Trainer's state, and the options that the checkpoint was made with (empty if it does
        not know). Raises UserError if this run cannot continue from it."""
        state = read_state(folder)
        mine, first = (folder / f"open_r1-rank{rank}.pt" for rank in (self.rank, 0))
        path = mine if mine.exists() else first
        try:
            kept = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): delete {folder} to continue from the one before."
            ) from error
        if state.global_step < self.total_steps():
            self._check_can_continue(folder, kept)
            self.load_checkpoint_state(kept)
        return state, kept.get("config", {})

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Trainer's `train`; a checkpoint's state of ours is loaded first, leftovers of a kill are removed."""
        if self.args.should_save:
            shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)
        if resume_from_checkpoint:
            folder = Path(str(resume_from_checkpoint))
            state, _ = self.load_checkpoint(folder)
            if state.global_step >= self.total_steps():
                return self._finished(folder, state)
        if self.backend == "zero3":
            model: Any = self.model
            backends.fetch_by_layer(model, self.accelerator)
        with self.watchdog:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _check_can_continue(self, folder: Path, kept: dict[str, Any]) -> None:
        instead = f"start from its weights (model_name_or_path {folder}, another output_dir)."
        if not (folder / "scheduler.pt").exists():
            raise UserError(
                f"{folder} holds the model only (save_only_model), so training cannot continue from it: {instead}"
            )
        before, now = (backends.family(backend) for backend in (kept["backend"], self.backend))
        if before != now:
            raise UserError(
                f"{folder} was written by {backends.DESCRIPTIONS[kept['backend']]}, and this is "
                f"{backends.DESCRIPTIONS[self.backend]}, which cannot read its optimizer: launch as before, or "
                f"{instead}"
            )
        if self.backend.startswith("zero") and kept["world_size"] != self.world_size:
            raise UserError(
                f"{folder} holds DeepSpeed's parts of {kept['world_size']} processes, and now there are "
                f"{self.world_size}: continue with {kept['world_size']} (DDP and FSDP2 can change their number), or "
                f"{instead}"
            )
        check_same_settings(folder.name, kept.get("settings", {}), self.resume_settings(), instead)

    def _finished(self, checkpoint: Path, state: TrainerState) -> TrainOutput:
        """What `train` gives for a checkpoint that needs no more steps (Trainer itself would run one more)."""
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        if self.is_wrapped:
            self._finished_in = Path(best or checkpoint)
        else:
            self._load_from_checkpoint(best or str(checkpoint))
        self.state = state
        return TrainOutput(state.global_step, math.nan, {})

    # Saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes a Hugging Face folder; collective. In bfloat16 if that is what was computed in, except where a
        checkpoint continues from these weights."""
        folder = Path(output_dir or str(self.args.output_dir))
        half = torch.bfloat16 if self.args.bf16 else None
        if not self.is_wrapped:
            model: Any = self.model
            if half is not None and not self._saving:
                model.to(half)
            super().save_model(output_dir, _internal_call)
            return
        if self._finished_in is not None:
            if self.args.should_save:
                _copy_model(self._finished_in, folder)
        else:
            state = whole_state_dict(self.accelerator.unwrap_model(self.model), half, keep=self.args.should_save)
            if self.args.should_save:
                self._save(str(folder), state_dict=state)
                _set_dtype(folder, half)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """As Trainer's. The weights are kept if anything that belongs beside them cannot be written."""
        try:
            super()._save(output_dir, state_dict)
        except (OSError, RuntimeError, SafetensorError):
            raise  # of the disk, see `saving`
        except Exception as error:
            path = self.output_dir / "model.safetensors"
            save_weights_alone(self.accelerator.unwrap_model(self.model), state_dict, path)
            raise UserError(
                f"{output_dir} could not be written ({error}); the weights of step {self.state.global_step} are in "
                f"{path}. Put the configuration and tokenizer of the model that was trained beside them."
            ) from error

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.output_dir / STAGING) if self._saving else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes into a staging folder and renames it, so that a checkpoint is whole or not there."""
        self.watchdog.beat("checkpoint")
        name = f"checkpoint-{self.state.global_step}"
        staged, final = self.output_dir / STAGING / name, self.output_dir / name
        self._saving = True
        try:
            with self._saving_checkpoint(name):
                super()._save_checkpoint(model, trial)
                torch.save(self.checkpoint_state(), staged / f"open_r1-rank{self.rank}.pt")
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.state.best_model_checkpoint == str(staged):
            self.state.best_model_checkpoint = str(final)
        if self.args.should_save:
            with self._saving_checkpoint(name):
                self.state.save_to_json(str(staged / "trainer_state.json"))
                seal(staged)
                publish(staged, final)
            rotate_checkpoints(
                output_dir=str(self.output_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )
            shutil.rmtree(self.output_dir / STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(final))

    def _saving_checkpoint(self, name: str) -> AbstractContextManager[None]:
        return saving(self.output_dir, name, "run the same command: it continues from the last whole checkpoint.")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing yet: Trainer calls this while the checkpoint is staged; `_save_checkpoint` pushes the renamed one."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run writes its own card (`report/card.py`), which Trainer's would overwrite."""


def check_same_settings(what: str, before: Mapping[str, Any], now: Mapping[str, Any], instead: str) -> None:
    """Raises UserError that names each setting of `before` that has another value in `now`."""
    changed = [
        f"{name} was {old!r} and is now {now.get(name)!r}" for name, old in before.items() if now.get(name) != old
    ]
    if changed:
        raise UserError(
            f"{what} belongs to other settings ({'; '.join(changed)}): continue with the same, or {instead}"
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
