"""The trainers of `from open_r1 import GRPOTrainer, SFTTrainer`, which the commands `grpo` and `sft` use too.

They are the trainers of `training/` (so `transformers.Trainer`s) with everything around them: they prepare options and
rows (`prepare.py`), open the policy and the engine that samples its completions, and `train` manages the folder of the
run, resumes it, and saves the final model (`run.py`). Each `__init__` reads in the order in which things happen.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.data.chat import stop_token_ids
from open_r1.engine.protocol import Engine
from open_r1.errors import UserError
from open_r1.run import arguments
from open_r1.run.benchmarks import Benchmarks
from open_r1.run.policy_engine import open_policy_engine
from open_r1.run.prepare import prepare_grpo, prepare_sft
from open_r1.run.run import Run
from open_r1.training import grpo, sft
from open_r1.training.model import adopt_policy, load_causal_lm, load_policy
from open_r1.training.packed_trainer import PackedTrainer

Rows: TypeAlias = Dataset | list[dict[str, Any]]


class _RunTrainer(PackedTrainer):
    """What both trainers do around those of `training/`."""

    run: Run
    benchmarks: Benchmarks
    prepare_rows: Callable[[Dataset], Any]
    """Turns rows of a dataset into what the trainer takes."""

    def train(self, resume_from_checkpoint: str | bool | None = None) -> Any:  # type: ignore[override]
        """Trains, continuing from the last whole checkpoint in `output_dir` if there is one (or from the given one),
        and saves model, tokenizer and card at the root of `output_dir`. Returns transformers' `TrainOutput`.

        Raises `Interrupted` after a signal to stop (Ctrl-C, a notebook's stop button), once a checkpoint is saved.
        """
        return self.run.train(self, self.benchmarks, resume_from_checkpoint)

    def evaluate(
        self, eval_dataset: Rows | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict:
        """Metrics on `eval_dataset`, or on that of the constructor: mean rewards and lengths, or the mean loss of the
        learned tokens."""
        if eval_dataset is None and self.eval_dataset is None:
            raise UserError("eval_dataset is missing: give it to evaluate, or to the trainer.")
        rows: Any = None
        if eval_dataset is not None:
            rows = self.prepare_rows(arguments.rows_of(eval_dataset, "eval_dataset"))
        return super().evaluate(rows, ignore_keys, metric_key_prefix)


class GRPOTrainer(_RunTrainer, grpo.GRPOTrainer):
    """Group relative policy optimization of `model` on problems with checkable answers.

    `model` is a hub id, a folder, a `ModelConfig` (for LoRA, a revision and the like), or a loaded model, which is then
    trained in place. `reward_funcs` are names of registered rewards, or functions as in TRL: they are called with
    `prompts`, `completions` and the columns of the dataset by name, as far as they take them, and return a number or
    None for each completion. Rows of the datasets have `prompt` (text or messages), and whatever the rewards read, such
    as `answer`. `engine` writes the completions in place of the one that `args` ask for; it must follow the policy's
    weights. `options` are fields of `open_r1.configs.GRPOScriptArguments`: `system_prompt`, `prompt_column`, and
    options of registered rewards.

    `close` frees the engine, which matters with vLLM only. Raises `UserError` for what the caller can mend.
    """

    def __init__(
        self,
        model: str | Path | ModelConfig | PreTrainedModel,
        args: GRPOConfig | None = None,
        *,
        reward_funcs: arguments.Reward | Sequence[arguments.Reward],
        train_dataset: Rows,
        eval_dataset: Rows | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        engine: Engine | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **options: Any,
    ) -> None:
        model_config, loaded = arguments.model_options(model)
        arguments.check_tokenizer(tokenizer, loaded)
        arguments.check_engine(engine)
        args = arguments.training_options(args, GRPOConfig, model_config)
        rewards = arguments.rewards_by_name(reward_funcs)
        script = arguments.data_options(GRPOScriptArguments, options | {"reward_funcs": list(rewards)})
        train, evaluation = arguments.datasets(script, args, train_dataset, eval_dataset)
        inputs = prepare_grpo(
            script,
            args,
            model_config,
            train,
            evaluation,
            tokenizer=tokenizer,
            reward_funcs=arguments.reward_functions(rewards, script),
            config=None if loaded is None else loaded.config,
        )
        self.prepare_rows, self.benchmarks = inputs.prepare_rows, inputs.benchmarks
        self.run = Run("grpo", script, args, model_config)
        policy = load_policy(model_config, args) if loaded is None else adopt_policy(loaded, model_config, args)
        reference = None
        if args.beta != 0 and loaded is not None:
            reference = adopt_policy(copy.deepcopy(loaded), model_config, args)
        elif args.beta != 0 and not model_config.use_peft:
            reference = load_causal_lm(model_config)
        stops = stop_token_ids(inputs.tokenizer, policy.generation_config)
        self._own_engine = None
        if engine is None:
            datasets = [inputs.train, inputs.evaluation]
            engine = self._own_engine = open_policy_engine(
                args, model_config, policy, inputs.tokenizer, datasets, inputs.benchmarks.longest
            )
        super().__init__(
            policy,
            args,
            engine=engine,
            reward_funcs=inputs.reward_funcs,
            reward_names=script.reward_funcs,
            stop_token_ids=stops,
            reference=reference,
            tokenizer=inputs.tokenizer,
            train_dataset=inputs.train,
            eval_dataset=inputs.evaluation,
            recorder=self.run.recorder,
            callbacks=[*self.run.callbacks, *callbacks],
            stop_signals=self.run.stop_signals,
        )
        self.benchmarks.attach(self, stops)

    def close(self) -> None:
        """Frees the engine, unless the caller passed it."""
        if self._own_engine is not None:
            self._own_engine.close()


class SFTTrainer(_RunTrainer, sft.SFTTrainer):
    """Supervised fine-tuning of `model` on reasoning traces.

    `model` as for `GRPOTrainer`. Rows of the datasets are conversations (`messages`), `prompt` and `completion`, or
    `text`. `options` are fields of `open_r1.configs.DataConfig`, such as `system_prompt`. Raises `UserError` for what
    the caller can mend.
    """

    def __init__(
        self,
        model: str | Path | ModelConfig | PreTrainedModel,
        args: SFTConfig | None = None,
        *,
        train_dataset: Rows,
        eval_dataset: Rows | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **options: Any,
    ) -> None:
        model_config, loaded = arguments.model_options(model)
        arguments.check_tokenizer(tokenizer, loaded)
        args = arguments.training_options(args, SFTConfig, model_config)
        script = arguments.data_options(DataConfig, options)
        train, evaluation = arguments.datasets(script, args, train_dataset, eval_dataset)
        inputs = prepare_sft(script, args, model_config, train, evaluation, tokenizer=tokenizer, loaded=loaded)
        self.prepare_rows, self.benchmarks = inputs.prepare_rows, inputs.benchmarks
        self.run = Run("sft", script, args, model_config)
        policy = load_policy(model_config, args) if loaded is None else adopt_policy(loaded, model_config, args)
        stops = stop_token_ids(inputs.tokenizer, policy.generation_config)
        policy.generation_config.eos_token_id = list(stops)
        super().__init__(
            policy,
            args,
            tokenizer=inputs.tokenizer,
            train_dataset=inputs.train,
            eval_dataset=inputs.evaluation,
            recorder=self.run.recorder,
            callbacks=[*self.run.callbacks, *callbacks],
            stop_signals=self.run.stop_signals,
        )
        self.benchmarks.attach(self, stops)
