"""Problems from a user's file. Rows are read as in training and generation."""

from typing import Any

from datasets import Dataset

from open_r1.data.columns import context_columns, gold_paths, prompt_path
from open_r1.data.conversations import INPUT, INSTRUCTION, is_conversation, prompt_messages, read_conversation
from open_r1.data.load import columns_of, source_name
from open_r1.data.paths import value_at
from open_r1.errors import UserError
from open_r1.evaluation.problems import BenchmarkProblem, Task, problem_id
from open_r1.options.columns import ColumnOptions
from open_r1.rewards.accuracy import gold_text
from open_r1.rewards.answers import extract_gold


def own_problems(task: Task, rows: Dataset, columns: ColumnOptions) -> list[BenchmarkProblem]:
    """The problems of `rows`. Text is put into `task.prompt`, a conversation is used unchanged, and the columns
    `system` and `tools` are added. Raises `UserError` with file, row and column."""
    path, source = prompt_path(rows, columns.prompt_column), source_name(rows)
    golds, context = gold_paths(rows, columns.answer_column), context_columns(rows, columns, exclude=[path])
    if not golds:
        there = columns_of(rows)
        raise UserError(
            f"{source}: no column has right answers; the columns are: {there}. Select one: --answer-column NAME."
        )
    problems = []
    for index, row in enumerate(rows):
        where = f"{source}, row {index + 1}"
        value = value_at(row, path)
        messages = prompt_messages(value, f"{where}, column {path}", row.get(INPUT) if path == INSTRUCTION else None)
        text = messages[-1]["content"].strip()
        prompt = text if is_conversation(value) else task.prompt.format(problem=text)
        messages = [*messages[:-1], {**messages[-1], "content": prompt}]
        conversation = read_conversation(messages, row, context, None, where)
        plain = len(conversation.messages) == 1 and not conversation.tools and not conversation.settings
        gold = extract_gold(_gold(row, golds, where))
        more: dict[str, Any] = {} if plain else {"conversation": conversation}
        problems.append(BenchmarkProblem(index, problem_id(task, row, index), text, prompt, gold, **more))
    return problems


def _gold(row: dict[str, Any], paths: list[str], where: str) -> str:
    text = next((text for path in paths if (text := gold_text(value_at(row, path)))), "")
    if not text:
        raise UserError(
            f"{where}, column {' and '.join(paths)}: it is empty, but every problem needs an answer: fill it in, or "
            "remove the row."
        )
    return text
