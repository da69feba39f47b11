"""Checks the arguments that Python callers pass to a trainer, and turns them into the options and rows of a command."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedModel

from open_r1.configs import DataConfig, ModelConfig, TrainConfig
from open_r1.errors import UserError
from open_r1.options.keywords import from_keywords
from open_r1.rewards import get_reward_func, reward_name
from open_r1.run.run import needs_eval

Config = TypeVar("Config", bound=TrainConfig)
Data = TypeVar("Data", bound=DataConfig)
Reward = str | Callable[..., Any]


def model_options(model: Any) -> tuple[ModelConfig, PreTrainedModel | None]:
    """The options of `model` (hub id, folder, `ModelConfig` or a loaded model), and the model if it is loaded."""
    if isinstance(model, ModelConfig):
        return model, None
    if isinstance(model, str | Path):
        return ModelConfig(model_name_or_path=str(model)), None
    if isinstance(model, PreTrainedModel):
        return ModelConfig(model_name_or_path=model.config.name_or_path or type(model).__name__), model
    remedy = ": for LoRA give ModelConfig(name, use_peft=True)" if hasattr(model, "peft_config") else ""
    raise UserError(
        f"model is a {type(model).__name__}: expected a hub id, a folder, a ModelConfig or a loaded model{remedy}."
    )


def data_options(kind: type[Data], options: Mapping[str, Any]) -> Data:
    """Options of data and rewards. Raises UserError for an unknown keyword."""
    script = from_keywords(kind, options)
    if script.dry_run:
        raise UserError("dry_run is true, which only the commands `open-r1 grpo` and `open-r1 sft` support: omit it.")
    return script


def check_tokenizer(tokenizer: Any, model: PreTrainedModel | None) -> None:
    """Raises UserError if there is neither a tokenizer nor a name from which to load one."""
    if tokenizer is None and model is not None and not model.config.name_or_path:
        raise UserError(
            "tokenizer is missing: the model was not loaded from a folder or the hub, so give its tokenizer."
        )


def training_options(args: Any, kind: type[Config], model: ModelConfig) -> Config:
    """`args`, or the defaults of `kind` and a folder named after the model, as in TRL."""
    if args is None:
        return kind(output_dir=f"{Path(str(model.model_name_or_path)).name}-{kind.__name__.removesuffix('Config')}")
    if not isinstance(args, kind):
        raise UserError(
            f"args is a {type(args).__module__}.{type(args).__name__}: expected an open_r1.{kind.__name__} (pass all "
            "other arguments, such as reward_funcs, by name)."
        )
    return args


def rewards_by_name(reward_funcs: Any) -> dict[str, Reward]:
    """Rewards (functions or names) by the name that metrics and rollouts use for them."""
    rewards = [reward_funcs] if isinstance(reward_funcs, str) or callable(reward_funcs) else reward_funcs
    if not isinstance(rewards, Sequence) or not rewards:
        raise UserError(f"reward_funcs is {rewards!r}: expected a function, the name of a reward, or a list of them.")
    named: dict[str, Reward] = {}
    for reward in rewards:
        if not isinstance(reward, str) and not callable(reward):
            raise UserError(f"reward_funcs: {reward!r} is neither a function nor the name of a reward.")
        name = reward if isinstance(reward, str) else reward_name(reward)
        if name in named:
            raise UserError(
                f"reward_funcs: two rewards have the name {name!r}, so their metrics would be mixed up: rename one."
            )
        named[name] = reward
    return named


def reward_functions(rewards: Mapping[str, Reward], script: Any) -> list[Callable]:
    """The functions; options of registered rewards are read from `script`."""
    return [get_reward_func(reward, script) if isinstance(reward, str) else reward for reward in rewards.values()]


def check_engine(engine: Any) -> None:
    """Raises UserError for an engine that cannot take a policy's weights."""
    if engine is not None and not all(hasattr(engine, name) for name in ("stream", "update_weights", "wake", "sleep")):
        raise UserError(
            f"engine is a {type(engine).__name__}, which cannot take over the weights of a policy: omit it, or give "
            "an engine that implements open_r1.engine.protocol.Engine."
        )


def rows_of(rows: Any, name: str) -> Dataset:
    """`rows` (a dataset or a list of dicts) as a dataset, which errors call `name`. Raises UserError."""
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        columns = dict.fromkeys(key for row in rows for key in row)
        try:
            rows = Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})
        except (pa.ArrowException, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{name}: a column has values of different types: {reason}") from error
    if not isinstance(rows, Dataset):
        raise UserError(f"{name} is {_described(rows)}: expected a datasets.Dataset (one split) or a list of dicts.")
    if len(rows) == 0:
        raise UserError(f"{name}: there are no rows.")
    rows = rows.with_format(None)  # a copy
    rows.info.description = name
    return rows


def datasets(script: DataConfig, args: TrainConfig, train: Any, evaluation: Any) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and to evaluate on. Raises UserError, also if the options request an evaluation without
    rows."""
    if script.dataset_name is not None or script.dataset_mixture is not None:
        return train, evaluation  # read by a command; errors name the files
    if evaluation is None and needs_eval(args):
        raise UserError("eval_strategy needs an evaluation set: give eval_dataset.")
    return rows_of(train, "train_dataset"), None if evaluation is None else rows_of(evaluation, "eval_dataset")


def _described(value: Any) -> str:
    return "missing" if value is None else "an empty list" if value == [] else f"a {type(value).__name__}"
