"""Prepares everything before training, according to the options: tokenizer, rewards, prompts or traces, and
benchmarks."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig, TrainConfig
from open_r1.data.chat import prepare_tokenizer, settle_tokenizer, stop_token_ids
from open_r1.data.columns import require_gold
from open_r1.data.prompts import drop_long_prompts, prompt_rows
from open_r1.data.sft import tokenize_sft
from open_r1.errors import UserError
from open_r1.modeling.loading import context_length, load_generation_config
from open_r1.modeling.rope import LengthRule, length_rule
from open_r1.rewards import GRADED, get_reward_funcs
from open_r1.run.benchmarks import Benchmarks
from open_r1.training.model import checkpoint_of, load_config
from open_r1.training.sft import PackedRows, packed_rows


@dataclass(frozen=True)
class GRPOInputs:
    """The data of a GRPO run. `prepare_rows` turns other rows into prompts like those of `train`."""

    tokenizer: PreTrainedTokenizerBase
    reward_funcs: list[Callable]
    prepare_rows: Callable[[Dataset], Dataset]
    train: Dataset
    evaluation: Dataset | None
    benchmarks: Benchmarks


def prepare_grpo(
    script: GRPOScriptArguments,
    args: GRPOConfig,
    model: ModelConfig,
    train: Dataset,
    evaluation: Dataset | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    reward_funcs: Sequence[Callable] | None = None,
    config: PretrainedConfig | None = None,
) -> GRPOInputs:
    """Prompts that leave room for a completion, rendered by the chat template, and everything else training needs.

    `tokenizer`, `reward_funcs` and `config` (the model's) are those that the options name unless given.
    Raises UserError.
    """
    tokenizer = load_tokenizer(args, model, tokenizer)
    functions = get_reward_funcs(script) if reward_funcs is None else list(reward_funcs)
    config = load_config(model) if config is None else config
    context = longest_sequence(config, args)
    graded = [name for name in script.reward_funcs if name in GRADED]

    def prepare_rows(rows: Dataset) -> Dataset:
        require_gold(rows, script.answer_column, graded)
        with args.main_process_first(desc="prompts"):
            rows = prompt_rows(rows, tokenizer, script, script.system_prompt)
            rows = drop_long_prompts(rows, context, args.max_completion_length)
        check_one_side(rows, length_rule(config), args.max_completion_length)
        return rows

    return GRPOInputs(
        tokenizer,
        functions,
        prepare_rows,
        prepare_rows(train),
        None if evaluation is None else prepare_rows(evaluation),
        Benchmarks(script, args, model, tokenizer),
    )


def longest_sequence(config: PretrainedConfig, args: GRPOConfig) -> int | None:
    """Maximum number of prompt plus completion tokens. None: no limit."""
    limits = [context_length(config), args.vllm_max_model_length]
    return min((limit for limit in limits if limit is not None), default=None)


def check_one_side(prompts: Dataset, rule: LengthRule | None, max_completion_length: int) -> None:
    """Raises UserError if a completion could cross the length at which the model's rotary embeddings change. Its first
    tokens would then be sampled with other frequencies than in training."""
    if rule is None:
        return
    lengths = [len(ids) for ids in prompts["prompt_ids"]]
    longest = max(lengths)
    if rule.side(min(lengths) + 1) != rule.side(longest + max_completion_length):
        raise UserError(
            f"max_completion_length is {max_completion_length}, and the longest prompt has {longest} tokens: together "
            f"more than the model's original context of {rule.original}, where its rotary embeddings ({rule.kind}) "
            f"change: set max_completion_length to at most {max(rule.original - longest, 0)}, or drop long prompts."
        )


@dataclass(frozen=True)
class SFTInputs:
    """The data of a fine-tuning run. `prepare_rows` turns other rows into packed rows like those of `train`."""

    tokenizer: PreTrainedTokenizerBase
    prepare_rows: Callable[[Dataset], PackedRows]
    train: PackedRows
    evaluation: PackedRows | None
    benchmarks: Benchmarks


def prepare_sft(
    script: DataConfig,
    args: SFTConfig,
    model: ModelConfig,
    train: Dataset,
    evaluation: Dataset | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    loaded: PreTrainedModel | None = None,
) -> SFTInputs:
    """Traces as rows of tokens, and everything else training needs. `tokenizer` is the model's unless given; `loaded`
    is the model, if it is loaded already.

    Raises UserError.
    """
    tokenizer = load_tokenizer(args, model, tokenizer)
    generation = load_generation_config(checkpoint_of(model)) if loaded is None else loaded.generation_config
    stops = stop_token_ids(tokenizer, generation)

    def prepare_rows(rows: Dataset) -> PackedRows:
        with args.main_process_first(desc="tokenizing"):
            return packed_rows(tokenize_sft(rows, tokenizer, args, script.system_prompt, script, stops), args)

    return SFTInputs(
        tokenizer,
        prepare_rows,
        prepare_rows(train),
        None if evaluation is None else prepare_rows(evaluation),
        Benchmarks(script, args, model, tokenizer),
    )


def load_tokenizer(
    args: TrainConfig, model: ModelConfig, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or a copy of `tokenizer`, with the chat template and end token of `args`."""
    name = str(model.model_name_or_path)
    eos_token: Any = args.eos_token if isinstance(args, SFTConfig) else None
    if tokenizer is not None:
        return settle_tokenizer(
            copy.deepcopy(tokenizer), name, args.chat_template, eos_token, args.chat_template_kwargs
        )
    return prepare_tokenizer(
        name,
        model.model_revision,
        model.trust_remote_code,
        args.chat_template,
        eos_token,
        args.chat_template_kwargs,
    )
