"""Checks before the first step of a run: options, tokenizer, disk space, and whether the folder has the same model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from open_r1.configs import TrainConfig
from open_r1.errors import UserError
from open_r1.files import free_space


def options_without_effect(args: TrainConfig) -> list[str]:
    """A sentence for each option that has no effect because of another one."""
    sentences = []
    saving, evaluating = SaveStrategy(args.save_strategy), IntervalStrategy(args.eval_strategy)
    saved = {SaveStrategy.NO: "no checkpoint is saved", SaveStrategy.EPOCH: "a checkpoint is saved after each epoch"}
    if saving in saved and args.save_steps != TrainConfig.__dataclass_fields__["save_steps"].default:
        sentences.append(
            f"save_steps is {args.save_steps:g}, but save_strategy is {saving.value}, so {saved[saving]}: set "
            "save_strategy to steps, or omit save_steps."
        )
    if evaluating != IntervalStrategy.STEPS and args.eval_steps is not None:
        sentences.append(
            f"eval_steps is {args.eval_steps:g}, but eval_strategy is {evaluating.value}, so it has no effect: set "
            "eval_strategy to steps, or omit eval_steps."
        )
    return sentences


def room_warning(args: TrainConfig, parameters: int, trained: int) -> str | None:
    """A sentence if the disk of `output_dir` is too full for what the run saves: `parameters` in float32, and in a
    checkpoint two moments of Adam for each `trained` one."""
    checkpoint = SaveStrategy(args.save_strategy) != SaveStrategy.NO
    needed = 4 * parameters + (8 * trained if checkpoint and not args.save_only_model else 0)
    free, _ = free_space(Path(args.output_dir or "."))
    if free >= needed:
        return None
    what = "a checkpoint" if checkpoint else "the model"
    return (
        f"output_dir is {args.output_dir}, where {free / 2**30:.1f} GiB are free, but {what} takes about "
        f"{needed / 2**30:.1f} GiB: make room before it is saved, or use another disk."
    )


def check_same_model(output_dir: Path, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises UserError if a resumed run was started with another model."""
    for name in ("model_name_or_path", "use_peft", "lora_r"):
        if name in earlier and earlier[name] != config.get(name):
            raise UserError(
                f"output_dir {output_dir} has a run with {name} {earlier[name]!r}, but {name} is now "
                f"{config.get(name)!r}: give another output_dir, or delete that folder to start over."
            )


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError if the tokenizer has more tokens than the model has embeddings."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"model_name_or_path: the tokenizer has {len(tokenizer)} tokens but the model has {rows} embeddings, so "
            "they do not match: use the tokenizer that came with the model."
        )
