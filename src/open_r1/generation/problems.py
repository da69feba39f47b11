"""Problems to sample completions for: rows of a dataset, read a few at a time on demand."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from open_r1.data.columns import context_columns, gold_path, gold_paths, prompt_path
from open_r1.data.conversations import (
    INPUT,
    INSTRUCTION,
    Conversation,
    is_conversation,
    prompt_messages,
    read_conversation,
)
from open_r1.data.load import source_name
from open_r1.data.paths import column_of, value_at, values_at
from open_r1.data.stored import message_type
from open_r1.errors import UserError
from open_r1.generation.options import PLAIN
from open_r1.options.columns import ColumnOptions
from open_r1.rewards.accuracy import golds_of

TESTS = "verification_info"
"""Column with the tests of programs, as of the reward `code`."""
READ = 256
"""Rows read at once."""


@dataclass(frozen=True)
class PromptRow:
    """Row `index` of the dataset: the problem's text, what the model is asked, and the gold answer ("" if there is
    none). `tests`: its `verification_info`, where the answer is a program."""

    index: int
    text: str
    conversation: Conversation
    gold: str
    tests: Any = None


class Problems:
    """The rows of `rows` as prompts. `template` is Jinja: `{{ instruction }}` is the text of `prompt_column`, and every
    other column goes by its name. Raises `UserError` for columns and fields that are not there."""

    def __init__(
        self,
        rows: Dataset,
        columns: ColumnOptions | None = None,
        *,
        template: str = PLAIN,
        system_prompt: str | None = None,
    ) -> None:
        columns = columns or ColumnOptions()
        self.rows, self.source = rows, source_name(rows)
        self.prompt_column = prompt_path(rows, columns.prompt_column)
        self.answer_path = gold_path(rows, columns.answer_column)
        """Column with right answers, if not `answer` or `solution`."""
        self.system_prompt, self.template = system_prompt, template
        self.message_type = message_type(rows, self.prompt_column)
        self._golds = gold_paths(rows, columns.answer_column)
        self._context = context_columns(rows, columns, exclude=[self.prompt_column])
        self._template, fields = _compiled(template, [INSTRUCTION, *rows.column_names])
        self._input = INPUT if self.prompt_column == INSTRUCTION and template == PLAIN else None
        self.has_tests = columns.answer_column is None and TESTS in rows.column_names
        """Whether the answers are programs, with a column of tests."""
        paths = [self.prompt_column, *self._golds, *fields, *self._context.paths, *([TESTS] if self.has_tests else [])]
        paths += [self._input] if self._input is not None and self._input in rows.column_names else []
        self._columns = list(dict.fromkeys(column_of(rows, path) for path in paths))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_golds(self) -> bool:
        """Whether there is a column with right answers."""
        return bool(self._golds)

    def read(self, indices: Sequence[int]) -> Iterator[PromptRow]:
        """The problems of `indices`, in ascending order. Raises `UserError` with row and column for an empty prompt."""
        for start in range(0, len(indices), READ):
            chosen = indices[start : start + READ]
            batch = self.rows.select_columns(self._columns)[list(chosen)]
            golds = self._read_golds(batch, len(chosen))
            for i, index in enumerate(chosen):
                yield self._problem({name: batch[name][i] for name in batch}, index, golds[i])

    def table(self, indices: Sequence[int]) -> pa.Table:
        """All columns of the rows `indices`, in that order."""
        return self.rows.with_format("arrow")[list(indices)].replace_schema_metadata(None)

    def digest(self) -> tuple[str, int]:
        """Short SHA-256 of all prompts and gold answers, and the bytes of the longest prompt."""
        digest, longest = hashlib.sha256(), 0
        for problem in self.read(range(len(self))):
            conversation = problem.conversation
            more = [conversation.tools, conversation.settings] if conversation.tools or conversation.settings else []
            more += [problem.tests] if self.has_tests else []
            digest.update(json.dumps([conversation.messages, problem.gold, *more]).encode())
            longest = max(longest, prompt_bytes(problem))
        return digest.hexdigest()[:16], longest

    def location(self, index: int) -> str:
        """The place of row `index` in messages."""
        return f"{self.source}, row {index + 1}, column {self.prompt_column}"

    def _read_golds(self, batch: dict[str, list], count: int) -> list[str]:
        if self.answer_path is not None:
            return golds_of(None, values_at(batch, self.answer_path), count)
        return golds_of(batch.get("solution"), batch.get("answer"), count) if self._golds else [""] * count

    def _problem(self, row: dict[str, Any], index: int, gold: str) -> PromptRow:
        value, where = value_at(row, self.prompt_column), self.location(index)
        messages = prompt_messages(value, where, row.get(self._input) if self._input else None)
        text = messages[-1]["content"]
        if self.template != PLAIN:
            if is_conversation(value):
                raise UserError(f"{where}: prompt_template is for text, but this is a conversation: omit it.")
            messages = prompt_messages(self._rendered(row, text, where), where)
        row_at = f"{self.source}, row {index + 1}"
        conversation = read_conversation(messages, row, self._context, self.system_prompt, row_at)
        return PromptRow(index, text, conversation, gold, row[TESTS] if self.has_tests else None)

    def _rendered(self, row: dict[str, Any], text: str, where: str) -> str:
        try:
            return self._template.render({**row, INSTRUCTION: text})
        except TemplateError as error:
            raise UserError(f"{where}: prompt_template cannot be filled in: {error}.") from error


def prompt_bytes(problem: PromptRow) -> int:
    """Bytes of all messages and tools: a bound on their tokens."""
    conversation = problem.conversation
    more = [conversation.tools or [], *({**m, "content": ""} for m in conversation.messages if len(m) > 2)]
    extra_bytes = sum(len(json.dumps(value)) for value in more if value)
    return extra_bytes + sum(len(message["content"].encode()) for message in conversation.messages)


def _compiled(template: str, known: list[str]) -> tuple[Any, list[str]]:
    """The template, and the columns that it names."""
    if "{" not in template:
        path = Path(template).expanduser()
        if not path.is_file():
            raise UserError(f"prompt_template is {template!r}: expected Jinja with {PLAIN}, or a file that holds it.")
        template = path.read_text(encoding="utf-8")
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        fields = meta.find_undeclared_variables(environment.parse(template))
        compiled = environment.from_string(template)
    except TemplateError as error:
        raise UserError(f"prompt_template is not a valid Jinja template: {error}.") from error
    unknown = sorted(fields - set(known))
    if unknown:
        raise UserError(f"prompt_template uses {unknown[0]!r}, which does not exist; it can use: {', '.join(known)}.")
    if not fields:
        raise UserError(
            f"prompt_template is {template!r}, the same for every row: put {PLAIN} where the problem belongs."
        )
    return compiled, sorted(fields - {INSTRUCTION} | ({INSTRUCTION} & set(known[1:])))
