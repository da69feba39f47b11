"""The trainers of `from open_r1 import GRPOTrainer, SFTTrainer`; the commands `grpo` and `sft` use them too.

They extend the trainers in `training/`, which are `transformers.Trainer`s. The constructor prepares options and rows
(`prepare.py`) and opens the policy and the engine that samples its completions. `train` manages the run folder,
resumes the run, and saves the final model (`run.py`). Each `__init__` is in the order in which things happen.
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
    """What both trainers add to those in `training/`."""

    run: Run
    benchmarks: Benchmarks
    prepare_rows: Callable[[Dataset], Any]
    """Turns the rows of a dataset into the trainer's input."""

    def train(self, resume_from_checkpoint: str | bool | None = None) -> Any:  # type: ignore[override]
        """Trains, and saves the final model, tokenizer and model card at the root of `output_dir`.

        If `output_dir` has a complete checkpoint, training continues from the last one, also in a new process.

        Args:
            resume_from_checkpoint: Folder of another checkpoint to continue from. `True` is the same as `None`: the
                last complete checkpoint in `output_dir`.

        Returns:
            `transformers.trainer_utils.TrainOutput`: the number of steps, the mean loss and the metrics.

        Raises:
            Interrupted: The process received SIGINT or SIGTERM (Ctrl-C, the stop button of a notebook). The current
                step is finished and a checkpoint is saved first. A second signal stops at once.
            UserError: The run cannot start or continue, for a reason that the message names.
        """
        return self.run.train(self, self.benchmarks, resume_from_checkpoint)

    def evaluate(
        self, eval_dataset: Rows | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict:
        """Computes metrics on an evaluation set, and records them in `run/metrics.jsonl` once `train` has begun.

        GRPO samples completions and reports mean rewards, and mean lengths in tokens. SFT reports the mean loss per
        learned token, in nats.

        Args:
            eval_dataset: Rows with the same columns as the training set. Default: `eval_dataset` of the constructor.
            ignore_keys: As in `transformers.Trainer.evaluate`.
            metric_key_prefix: Prefix of each name in the result: `eval` gives `eval_loss`, and so on.

        Returns:
            Each metric by name.

        Raises:
            UserError: There is no evaluation set, or a row cannot be read.
        """
        if eval_dataset is None and self.eval_dataset is None:
            raise UserError("eval_dataset is missing: give it to evaluate, or to the trainer.")
        rows: Any = None
        if eval_dataset is not None:
            rows = self.prepare_rows(arguments.rows_of(eval_dataset, "eval_dataset"))
        return super().evaluate(rows, ignore_keys, metric_key_prefix)


class GRPOTrainer(_RunTrainer, grpo.GRPOTrainer):
    """Group relative policy optimization (GRPO) on problems whose answers can be checked.

    It is a `transformers.Trainer`, so `add_callback`, `save_model`, `push_to_hub` and `state.log_history` work as
    usual. The objective is that of DeepSeekMath (arXiv 2402.03300, eq. 3); `GRPOConfig` lists the variants.

    Args:
        model: Hub id, local folder, `ModelConfig` (for LoRA, a revision and so on), or a loaded model. A loaded model
            is trained in place, and its weights become float32.
        args: Training options. Default: `GRPOConfig` with the folder `<model>-GRPO`.
        reward_funcs: One reward or several: names of registered rewards such as `"accuracy"`, or functions. A function
            is called with `prompts`, `completions`, `completion_ids` and every column of the dataset, by name, if it
            has such a parameter (or `**kwargs`). Each argument is a list with one item per completion. It returns one
            number per completion, or None if the reward does not apply.
        train_dataset: A `datasets.Dataset` or a list of dicts. `prompt` holds text or messages; the rewards read the
            other columns, such as `answer`.
        eval_dataset: Rows for `evaluate`, with the same columns.
        tokenizer: Default: the model's own. A model made in memory needs one.
        engine: Samples the completions instead of the engine that `args` select. It must implement
            `open_r1.engine.protocol.Engine`, `update_weights` included.
        callbacks: Further `transformers.TrainerCallback`s.
        **options: Fields of `open_r1.configs.GRPOScriptArguments`, such as `system_prompt`, `prompt_column`, and
            options of registered rewards, such as `cosine_max_len`.

    Raises:
        UserError: An option, a row or a reward is wrong. The message names the field, its value and the remedy.
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
        """Frees the engine, unless the caller passed one. With vLLM, this ends its processes."""
        if self._own_engine is not None:
            self._own_engine.close()


class SFTTrainer(_RunTrainer, sft.SFTTrainer):
    """Supervised fine-tuning (SFT) on reasoning traces.

    It is a `transformers.Trainer`, so `add_callback`, `save_model`, `push_to_hub` and `state.log_history` work as
    usual. The loss is the mean cross-entropy per learned token, in nats.

    Args:
        model: Hub id, local folder, `ModelConfig` (for LoRA, a revision and so on), or a loaded model. A loaded model
            is trained in place, and its weights become float32.
        args: Training options. Default: `SFTConfig` with the folder `<model>-SFT`.
        train_dataset: A `datasets.Dataset` or a list of dicts, with conversations (`messages`), with `prompt` and
            `completion`, or with plain `text`.
        eval_dataset: Rows for `evaluate`, with the same columns.
        tokenizer: Default: the model's own. A model made in memory needs one.
        callbacks: Further `transformers.TrainerCallback`s.
        **options: Fields of `open_r1.configs.DataConfig`, such as `system_prompt`.

    Raises:
        UserError: An option or a row is wrong. The message names the field, its value and the remedy.
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
