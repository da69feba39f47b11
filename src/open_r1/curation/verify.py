"""`open-r1 data verify`: keeps completions with right answers, as conversations for fine-tuning.

    open-r1 data verify data/traces --output data/verified
    open-r1 data verify open-r1/OpenR1-Math-220k --choose shortest --per-problem 2 --dry-run

It reads the output of `open-r1 generate`, or any dataset with completions and right answers. It grades every answer
again and counts verdicts by reason, so that you can check those that rest on a heuristic (prose, units, names).
It first drops completions that are cut off, repeat themselves, switch to another script, or have no reasoning.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Literal

import pyarrow as pa
from datasets import Dataset

from open_r1.curation.quality import foreign_letters, is_loop
from open_r1.curation.reasoning import with_think_marks
from open_r1.curation.rows import READ, DatasetWriter, ProblemColumn, Report, RowOptions, as_text, load, take
from open_r1.data.columns import PROBLEMS, gold_path, gold_paths, named_or_first, prompt_path
from open_r1.data.conversations import is_conversation, place_reasoning
from open_r1.data.load import columns_of, source_name
from open_r1.data.messages import REASONING_FIELDS, check_messages
from open_r1.data.paths import column_of, values_at
from open_r1.data.stored import FULL, PLAIN, as_stored, message_type
from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.options.annotations import Alias, Range
from open_r1.rewards import grade_many
from open_r1.rewards.accuracy import golds_of

COMPLETION_COLUMNS = ("completion", "generation", "generations", "messages", "conversations")


@dataclass(kw_only=True)
class VerifyOptions(ProblemColumn, RowOptions):
    """Completions."""

    choose: Literal["first", "shortest", "all"] = "first"
    """Which right completions of a problem to keep."""
    per_problem: Annotated[int | None, Range(at_least=1)] = None
    """Maximum number of completions to keep per problem. Default: 1 (with `all`: all of them)."""
    completion_column: Annotated[str | None, Alias("messages_column")] = None
    """Column with completions, or with whole conversations. Default: the first of `completion`, `generation`,
    `generations`, `messages` and `conversations`."""
    answer_column: Annotated[str | None, Alias("dataset_answer_column")] = None
    """Column with the right answer. Default: `answer`, `final_answer`, `solution`, or verl's
    `reward_model.ground_truth`."""
    max_foreign_letters: int = 8
    """Maximum number of letters in scripts that the problem does not use."""


@dataclass(frozen=True)
class Candidate:
    """Completion `part` of row `row`; `length` in tokens or characters, to find the shortest. `answer` is the final
    answer in it, once it was graded."""

    row: int
    part: int
    length: int
    answer: str = ""


class Verifier:
    """Finds the completions of `dataset` that are worth learning from, and turns them into conversations."""

    def __init__(self, dataset: Dataset, args: VerifyOptions) -> None:
        self.dataset, self.args = dataset, args
        self.problem = prompt_path(dataset, args.prompt_column, PROBLEMS)
        found = named_or_first(dataset, args.completion_column, COMPLETION_COLUMNS, "completion_column")
        columns = columns_of(dataset)
        if found is None:
            raise UserError(
                f"{source_name(dataset)}: there is no column {', '.join(COMPLETION_COLUMNS)}; the columns are: "
                f"{columns}. Select the column with completions: --completion-column NAME."
            )
        self.completion, self.gold = found, gold_path(dataset, args.answer_column)
        golds = gold_paths(dataset, args.answer_column)
        if not golds:
            raise UserError(
                f"{source_name(dataset)}: no column has right answers; the columns are: {columns}. Give "
                "--answer-column."
            )
        self.prompt = "prompt" if "prompt" in dataset.column_names else self.problem
        types = [message_type(dataset, path) for path in (self.prompt, self.completion)]
        self.message_type = FULL if FULL in types else PLAIN
        extra = [name for name in ("finish_reason", "n_tokens") if name in dataset.column_names]
        paths = [self.problem, self.prompt, self.completion, *golds, *extra]
        self.columns = list(dict.fromkeys(column_of(dataset, path) for path in paths))

    def choose(self, report: Report) -> list[Candidate]:
        """The completions to keep, in the order of the rows; `report` records the others."""
        by_problem: dict[bytes, list[Candidate]] = {}
        reasons: Counter[str] = Counter()
        rows = self.dataset.select_columns(self.columns)
        for start in range(0, len(rows), READ):
            batch = rows[start : start + READ]
            candidates = self._passing(start, batch, report)
            golds = self._golds(batch)
            verdicts = grade_many(
                completions=[text for _, _, text in candidates], golds=[golds[c.row - start] for c, _, _ in candidates]
            )
            for (candidate, key, text), verdict in zip(candidates, verdicts, strict=True):
                if verdict.correct is not None:
                    reasons[f"{'right' if verdict.correct else 'wrong'}: {verdict.reason}"] += 1
                if verdict.correct is None:
                    reason = f"ungradable: {verdict.reason}" if "gold" in verdict.reason else "ungradable"
                elif not verdict.correct:
                    reason = "no answer" if verdict.extracted is None else "wrong"
                elif with_think_marks(text, answer := verdict.extracted or "") is None:
                    reason = "no reasoning"
                else:
                    by_problem.setdefault(key, []).append(replace(candidate, answer=answer))
                    continue
                self._drop(report, reason, candidate)
        report.figures["problems with a right completion"] = len(by_problem)
        report.figures |= dict(reasons.most_common())
        return sorted(self._pick(by_problem, report), key=lambda c: (c.row, c.part))

    def tables(self, chosen: list[Candidate]) -> Iterator[pa.Table]:
        """The rows of `chosen` with `messages` in place of prompt and completion."""
        rest = iter(chosen)
        for source in take(self.dataset, [candidate.row for candidate in chosen]):
            part = list(islice(rest, len(source)))
            batch = self.dataset.select_columns(self.columns)[[candidate.row for candidate in part]]
            messages = [
                [
                    *self._prompt(batch, i, f"{source_name(self.dataset)}, row {c.row + 1}"),
                    {"role": "assistant", "content": with_think_marks(_texts(value)[c.part], c.answer)},
                ]
                for i, (c, value) in enumerate(zip(part, values_at(batch, self.completion), strict=True))
            ]
            dropped = {self.completion, "prompt", "messages", "conversations", "finish_reason", "correct", "reason"}
            columns = {name: source[name] for name in source.column_names if name not in dropped}
            if self.problem in dropped and "problem" not in columns:
                columns["problem"] = pa.array(map(as_text, values_at(batch, self.problem)), pa.string())
            stored = [as_stored(conversation, self.message_type) for conversation in messages]
            yield pa.table({**columns, "messages": pa.array(stored, self.message_type)})

    def _passing(self, start: int, batch: dict[str, list], report: Report) -> list[tuple[Candidate, bytes, str]]:
        """Candidates that pass every check but that of the answer, with the key of their problem and their text."""
        candidates = []
        problems = values_at(batch, self.problem)
        for i, value in enumerate(values_at(batch, self.completion)):
            problem = as_text(problems[i])
            key = hashlib.sha1(" ".join(problem.split()).encode(errors="replace")).digest()
            for part, text in enumerate(_texts(value)):
                report.read += 1
                tokens = batch["n_tokens"][i] if "n_tokens" in batch and not isinstance(value, list) else None
                candidate = Candidate(start + i, part, len(text) if tokens is None else tokens)
                if not text.strip():
                    self._drop(report, "empty", candidate)
                elif "finish_reason" in batch and batch["finish_reason"][i] == "length":
                    self._drop(report, "cut off", candidate)
                elif is_loop(text):
                    self._drop(report, "repeats itself", candidate)
                elif foreign_letters(text, problem) > self.args.max_foreign_letters:
                    self._drop(report, "switches to another script", candidate)
                else:
                    candidates.append((candidate, key, text))
        return candidates

    def _pick(self, by_problem: dict[bytes, list[Candidate]], report: Report) -> Iterator[Candidate]:
        most = self.args.per_problem or (None if self.args.choose == "all" else 1)
        for candidates in by_problem.values():
            by_length = self.args.choose == "shortest"
            ordered = sorted(candidates, key=lambda c: (c.length, c.row, c.part) if by_length else (c.row, c.part))
            yield from ordered[:most]
            for candidate in ordered[most:] if most is not None else []:
                self._drop(report, "right, but not selected", candidate)

    def _golds(self, batch: dict[str, list]) -> list[str]:
        count = len(values_at(batch, self.problem))
        if self.gold is not None:
            return golds_of(None, values_at(batch, self.gold), count)
        return golds_of(batch.get("solution"), batch.get("answer"), count)

    def _prompt(self, batch: dict[str, list], i: int, where: str) -> list[dict[str, Any]]:
        """The messages before the answer. The reasoning of earlier turns is between think tags."""
        completion, prompt = values_at(batch, self.completion)[i], values_at(batch, self.prompt)[i]
        before = _turns(completion, where) if is_conversation(completion) else []
        if before and before[0]["role"] != "assistant":  # the whole conversation
            return before
        if is_conversation(prompt):
            return _turns(prompt, where) + before
        return [{"role": "user", "content": as_text(values_at(batch, self.problem)[i])}, *before]

    def _drop(self, report: Report, reason: str, candidate: Candidate) -> None:
        report.drop(reason, f"row {candidate.row + 1}" + (f" ({candidate.part + 1})" if candidate.part else ""))


def main(argv: list[str] | None = None) -> None:
    """Verifies, and reports what was dropped and why. Raises UserError."""
    (args,) = parse_options(argv, VerifyOptions, prog="open-r1 data verify", description=__doc__)
    verifier = Verifier(load(args), args)
    report = Report("verify")
    chosen = verifier.choose(report)
    report.kept = len(chosen)
    writer = DatasetWriter(args)
    writer.add(verifier.tables(chosen))
    writer.finish(
        report,
        what="Reasoning traces with right final answers.",
        columns={"messages": "the conversation for fine-tuning, with reasoning between think tags"},
    )


def _turns(value: Any, where: str) -> list[dict[str, Any]]:
    """The messages of a conversation, except its last answer."""
    turns = place_reasoning(check_messages(value, where), None)
    return turns[:-1] if turns[-1]["role"] == "assistant" else turns


def _texts(value: Any) -> list[str]:
    """The completions in a cell: text, several texts, or the last message of a conversation."""
    if is_conversation(value):
        messages = json.loads(value) if isinstance(value, str) else value
        last = messages[-1]
        if last.get("tool_calls") or not any(last.get(name) for name in ("content", "value", *REASONING_FIELDS)):
            return [""]
        return [place_reasoning(check_messages([last], "the completion"), None)[0]["content"]]
    if isinstance(value, str):
        return [value]
    return [str(text or "") for text in value] if isinstance(value, list) else [""]
