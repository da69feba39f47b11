"""Problems as prompts for GRPO."""

import logging
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from open_r1.data.caching import fingerprint
from open_r1.data.chat import encode, place_reasoning, reasoning_field, render, with_system_prompt
from open_r1.data.columns import GOLD_COLUMNS, gold_path, require_path, value_at
from open_r1.data.load import source_name
from open_r1.data.messages import check_messages
from open_r1.errors import UserError

logger = logging.getLogger(__name__)


def prompt_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    prompt_column: str,
    system_prompt: str | None,
    answer_column: str | None = None,
) -> Dataset:
    """`dataset` with `prompt` (messages), `prompt_text` (rendered up to where the assistant starts) and `prompt_ids`.

    Text becomes one user message. The other columns stay, for the rewards; `answer` is what `answer_column` holds,
    which may be a field (`reward_model.ground_truth`). Raises `UserError` with source, row
    and column for a missing column, an empty problem, a conversation that already ends with an answer, and a row
    whose gold (`answer` and `solution`, as far as there are such columns) is empty.
    """
    require_path(dataset, prompt_column, remedy="Name the one with the problem: --dataset_prompt_column NAME.")
    source = source_name(dataset)
    gold = gold_path(dataset, answer_column)
    gold_columns = [gold] if gold else [name for name in GOLD_COLUMNS if name in dataset.column_names]

    field = reasoning_field(tokenizer)

    def to_prompt(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index + 1}"
        if gold_columns and all(_is_empty(value_at(row, name)) for name in gold_columns):
            columns = " and ".join(gold_columns)
            raise UserError(f"{where}, column {columns}: the gold answer is empty, so no completion can be right.")
        where += f", column {prompt_column}"
        messages = _messages(value_at(row, prompt_column), where)
        own_system = row.get("system") if prompt_column != "system" else None
        messages = with_system_prompt(messages, own_system if isinstance(own_system, str) else None)
        messages = place_reasoning(with_system_prompt(messages, system_prompt), field)
        text = render(tokenizer, messages, add_generation_prompt=True, where=where)
        found = value_at(row, gold) if gold else None
        answer = {"answer": found if isinstance(found, list) else str(found)} if gold else {}
        return {**answer, "prompt": messages, "prompt_text": text, "prompt_ids": encode(tokenizer, text)}

    return dataset.map(
        to_prompt,
        with_indices=True,
        desc="Prompts",
        new_fingerprint=fingerprint(dataset, tokenizer, "prompts", prompt_column, system_prompt, gold),
    )


def drop_long_prompts(rows: Dataset, context: int | None, max_completion_length: int) -> Dataset:
    """`rows` without prompts that leave no room for a completion in `context` tokens (None: no limit); says how many.

    Raises `UserError` if none is left.
    """
    if context is None:
        return rows
    room = context - max_completion_length
    kept = [i for i, ids in enumerate(rows["prompt_ids"]) if len(ids) <= room]
    if not kept:
        raise UserError(
            f"max_completion_length is {max_completion_length}, which leaves {max(room, 0)} of the model's {context} "
            "tokens of context to the prompts, and all are longer: lower it."
        )
    if len(kept) < len(rows):
        logger.warning(
            "%s: %d of %d prompts are longer than %d tokens (context %d less max_completion_length %d): left out.",
            source_name(rows),
            len(rows) - len(kept),
            len(rows),
            room,
            context,
            max_completion_length,
        )
        return rows.select(kept)
    return rows


def _messages(problem: Any, where: str) -> list[dict[str, Any]]:
    if _is_empty(problem):
        raise UserError(f"{where}: the problem is empty.")
    if isinstance(problem, str):
        return [{"role": "user", "content": problem}]
    messages = check_messages(problem, where)
    if messages[-1]["role"] == "assistant":
        raise UserError(f"{where}: the prompt ends with an assistant message; leave the answer out of the prompt.")
    if _is_empty(messages[-1]["content"]):
        raise UserError(f"{where}: the problem is empty.")
    return messages


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
