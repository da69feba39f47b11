"""Problems to sample answers for: rows of a dataset, read a few at a time as they are needed."""

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

from open_r1.data.chat import with_system_prompt
from open_r1.data.columns import column_of, require_path, value_at, values_at
from open_r1.data.load import source_name
from open_r1.data.messages import check_messages
from open_r1.engine.protocol import Message
from open_r1.errors import UserError
from open_r1.generation.options import PLAIN
from open_r1.rewards.accuracy import golds_of

INSTRUCTION = "instruction"
"""The name of the prompt column's text in templates."""
TESTS = "verification_info"
"""Column with the tests of programs, as of the reward `code`."""
READ = 256
"""Rows read at once."""


@dataclass(frozen=True)
class PromptRow:
    """Row `index` of the dataset: the prompt, and the gold answer ("" if there is none). `tests`: its
    `verification_info`, if the answer is a program."""

    index: int
    text: str
    messages: list[Message]
    gold: str
    tests: Any = None


class Problems:
    """The rows of `rows` as prompts. `template` is Jinja: `{{ instruction }}` is the text of `prompt_column`, and every
    other column goes by its name. Raises `UserError` for columns and fields that are not there."""

    def __init__(
        self,
        rows: Dataset,
        prompt_column: str,
        *,
        template: str = PLAIN,
        system_prompt: str | None = None,
        answer_column: str | None = None,
    ) -> None:
        require_path(rows, prompt_column, remedy="Name the one with the problem: --prompt-column NAME.")
        if answer_column is not None:
            require_path(rows, answer_column, remedy="Name the one with the right answer: --answer-column NAME.")
        self.rows, self.prompt_column, self.answer_column = rows, prompt_column, answer_column
        self.system_prompt, self.template = system_prompt, template
        self.source = source_name(rows)
        self._golds = (
            [answer_column] if answer_column else [c for c in ("answer", "solution") if c in rows.column_names]
        )
        self._template, fields = _compiled(template, [INSTRUCTION, *rows.column_names])
        self.has_tests = answer_column is None and TESTS in rows.column_names
        """Whether the answers are programs, with a column of tests."""
        paths = [prompt_column, *self._golds, *fields, *([TESTS] if self.has_tests else [])]
        self._columns = list(dict.fromkeys(column_of(rows, path) for path in paths))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_golds(self) -> bool:
        """Whether there is a column with right answers."""
        return bool(self._golds)

    def read(self, indices: Sequence[int]) -> Iterator[PromptRow]:
        """The problems of `indices`, which ascend. Raises `UserError` with row and column for an empty prompt."""
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
            tests = [problem.tests] if self.has_tests else []
            digest.update(json.dumps([problem.messages, problem.gold, *tests]).encode())
            longest = max(longest, prompt_bytes(problem))
        return digest.hexdigest()[:16], longest

    def location(self, index: int) -> str:
        """The place of row `index` in messages."""
        return f"{self.source}, row {index + 1}, column {self.prompt_column}"

    def _read_golds(self, batch: dict[str, list], count: int) -> list[str]:
        if self.answer_column is not None:
            return golds_of(None, values_at(batch, self.answer_column), count)
        return golds_of(batch.get("solution"), batch.get("answer"), count) if self._golds else [""] * count

    def _problem(self, row: dict[str, Any], index: int, gold: str) -> PromptRow:
        value, where = value_at(row, self.prompt_column), self.location(index)
        if isinstance(value, list) and value:
            if self.template != PLAIN:
                raise UserError(f"{where}: prompt_template is for text, and this is a conversation: leave it out.")
            messages = check_messages(value, where)
            if messages[-1]["role"] == "assistant":
                raise UserError(f"{where}: the conversation ends with an answer; leave that out of the prompt.")
            text = messages[-1]["content"]
        else:
            text = "" if value is None else str(value)
            messages = [{"role": "user", "content": self._rendered(row, text, where)}]
        if not text.strip() or not messages[-1]["content"].strip():
            raise UserError(f"{where}: the prompt is empty; fill it in, or take the row out.")
        chosen: Any = with_system_prompt(messages, self.system_prompt)
        return PromptRow(index, text, chosen, gold, row[TESTS] if self.has_tests else None)

    def _rendered(self, row: dict[str, Any], text: str, where: str) -> str:
        if self.template == PLAIN:
            return text
        try:
            return self._template.render({**row, INSTRUCTION: text})
        except TemplateError as error:
            raise UserError(f"{where}: prompt_template cannot be filled in: {error}.") from error


def prompt_bytes(problem: PromptRow) -> int:
    """Bytes of all messages: an upper bound of their tokens."""
    return sum(len(message["content"].encode()) for message in problem.messages)


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
        raise UserError(f"prompt_template is no valid Jinja template: {error}.") from error
    unknown = sorted(fields - set(known))
    if unknown:
        raise UserError(f"prompt_template asks for {unknown[0]!r}, which there is not; there are: {', '.join(known)}.")
    if not fields:
        raise UserError(f"prompt_template is {template!r}, the same for every row: put {PLAIN} where the problem goes.")
    return compiled, sorted(fields - {INSTRUCTION} | ({INSTRUCTION} & set(known[1:])))
