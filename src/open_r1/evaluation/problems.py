"""The parts of a benchmark: the declaration of a task, and its problems."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from open_r1.rewards import Verdict

if TYPE_CHECKING:
    from open_r1.data.conversations import Conversation

ID_COLUMNS = ("id", "unique_id", "ID", "Record ID")
BOXED = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
CHOICE = (
    "{problem}\n\n{choices}\n\nPlease reason step by step, and put the letter of the right choice, and nothing else, "
    "within \\boxed{{}}."
)


@dataclass(frozen=True)
class Source:
    """A split of a hub dataset; without `revision`, the newest. `data_files` names the files to read, where the
    repository has more. `lacks` is what it does not have, such as tests: then problems come from files only."""

    id: str
    split: str
    config: str | None = None
    revision: str | None = None
    data_files: tuple[str, ...] = ()
    lacks: str = ""


@dataclass(frozen=True)
class Task:
    """A benchmark. `samples` is DeepSeek's number of samples per problem (ours if they give none).

    `make(n)` generates n problems (None: the default number) instead of reading rows. `read(rows, where)` reads
    problems without gold answers, whose answers are programs, judged by tests. `reward` names the reward that judges
    the answers, if they are not compared with gold answers. `recorded` are further settings that determine the
    problems; they are saved with the results.
    """

    name: str
    source: Source | None
    samples: int
    files: tuple[str, ...] = ()
    prompt: str = BOXED
    multiple_choice: bool = False
    max_new_tokens: int = 32768
    make: "Callable[[int | None], list[BenchmarkProblem]] | None" = None
    read: "Callable[[Sequence[Mapping[str, Any]], str], Iterator[BenchmarkProblem]] | None" = None
    reward: str | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def votes(self) -> bool:
        """Whether right answers are equal, so that a majority vote makes sense."""
        return self.read is None and self.reward is None

    @property
    def programs(self) -> bool:
        """Whether answers are programs, judged by tests; they have no gold answer."""
        return self.read is not None


@dataclass(frozen=True)
class BenchmarkProblem:
    """A prompt (`problem` with the task's instruction) and its gold answer.

    `judge` gives the verdicts of completions, each with its problem; None: they are compared with the gold answers.
    `tests` judge a program. `groups` split the scores, for example by difficulty. `conversation` ends with
    `prompt`; None if that is its only message.
    """

    index: int
    id: str
    problem: str
    prompt: str
    gold: str
    judge: "Callable[[Sequence[tuple[BenchmarkProblem, str]]], list[Verdict]] | None" = None
    tests: Any = None
    conversation: "Conversation | None" = None
    groups: Mapping[str, str] = field(default_factory=dict)


def digest(problems: Sequence[BenchmarkProblem]) -> str:
    """Short SHA-256 of prompts and gold answers: identifies a version of a benchmark."""
    rows = [(p.id, p.prompt, p.gold, *([asdict(p.conversation)] if p.conversation else [])) for p in problems]
    text = json.dumps(rows, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def problem_id(task: Task, row: Mapping[str, Any], index: int) -> str:
    """The id that row `index` has, or its number under the name of the task."""
    value = next((row[column] for column in ID_COLUMNS if row.get(column) not in (None, "")), None)
    return f"{folder_name(task.name)}-{index:04d}" if value is None else str(value)


def folder_name(task: str) -> str:
    """`gpqa:diamond` as a folder: `gpqa_diamond`."""
    return task.replace(":", "_").replace("/", "_")
