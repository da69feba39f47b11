"""Runs benchmarks by DeepSeek's protocol. Every sample is saved, and every score has an interval.

    open-r1 evaluate --model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --tasks math_500,aime24 --output runs/evaluation
    open-r1 evaluate --model runs/grpo --tasks gsm8k --data-dir data --num-samples 4 --max-new-tokens 2048
    open-r1 evaluate --model runs/grpo --tasks gsm8k --data-dir data --protocol greedy,deepseek
    open-r1 evaluate --model NAME --base-url http://localhost:8000/v1 --tasks mine.jsonl

Tasks: {tasks},
reasoning_gym:NAME (with the extra reasoning-gym), or a .jsonl, .json, .csv or .parquet file with columns such as
problem and answer. Run the same command again to continue an interrupted run. `open-r1 compare` compares two models,
and `open-r1 report` writes a page for reading the answers.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from open_r1.engine.options import Count, EngineOptions
from open_r1.errors import UserError
from open_r1.evaluation.problems import Task, folder_name
from open_r1.evaluation.reward_judge import with_reward
from open_r1.evaluation.tasks import TASKS, find_task, load_problems, with_prompt
from open_r1.options import parse_options
from open_r1.options.annotations import Commas, Range
from open_r1.options.columns import ColumnOptions
from open_r1.progress_bars import hide_library_bars
from open_r1.run.entry import exit_with_sentence

if TYPE_CHECKING:
    from open_r1.evaluation.protocol import Protocol


@dataclass(kw_only=True)
class EvaluateOptions(ColumnOptions):
    """Benchmarks."""

    tasks: Annotated[list[str], Commas()]
    """Tasks by name, or files with problems."""
    output: Path | None = None
    """Folder for the results. Default: MODEL/evaluation for a local model, else evaluation/MODEL."""
    data_dir: Path | None = None
    """Folder with the problems, as <task>.jsonl[.gz] or <task>.parquet. Default: the hub."""
    limit: Annotated[int | None, Range(at_least=1)] = None
    """Use only the first N problems of each task."""

    # --- Sampling (default: the task's, by protocol) ---
    protocol: Annotated[tuple[Literal["deepseek", "greedy"], ...], Commas()] = ("deepseek",)
    """How to sample (docs/evaluation.md). If both are given, each has its own folder for the results."""
    num_samples: Annotated[int | None, Range(at_least=1)] = None
    """Samples per problem."""
    temperature: Annotated[float | None, Range(at_least=0)] = None
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float | None, Range(above=0, at_most=1)] = None
    """Sample from the most likely tokens, up to this total probability."""
    max_new_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Maximum length of an answer, in tokens."""
    seed: int = 0
    """Random seed for sampling."""
    system_prompt: str | None = None
    """System prompt. Default: none, as in DeepSeek's protocol."""
    prompt: str | None = None
    """Text of the prompt, in which {problem} stands for the problem. Default: the task's own."""
    reward: str | None = None
    """Reward that judges the answers, by name or as path/to/file.py:function; 1 or more is right. Default: the task's
    own judge, which compares with the gold answer."""
    k: Annotated[tuple[Count, ...], Commas()] = ()
    """Values of k for pass@k, in addition to powers of two."""

    def __post_init__(self) -> None:
        if len(set(self.protocol)) < len(self.protocol):
            raise UserError(f"protocol is {','.join(self.protocol)!r}: give each protocol once.")


def main(argv: list[str] | None = None) -> None:
    """Evaluates with the options in `argv` (default: the command line). Raises `UserError`."""
    args, engine_options = parse_options(
        argv,
        EvaluateOptions,
        EngineOptions,
        prog="open-r1 evaluate",
        description=(__doc__ or "").format(tasks=", ".join(TASKS)),
    )
    tasks = [find_task(name) for name in args.tasks if name]
    if len({task.name for task in tasks}) < len(tasks) or not tasks:
        raise UserError(f"tasks is {','.join(args.tasks)!r}: expected names of different tasks, separated by commas.")
    if args.prompt is not None:
        tasks = [with_prompt(task, args.prompt) for task in tasks]
    if args.reward is not None:
        tasks = [with_reward(task, args.reward) for task in tasks]
    columns = [f.name for f in fields(ColumnOptions) if getattr(args, f.name) is not None]
    if columns and not any(task.source is task.make is task.read is None for task in tasks):
        raise UserError(f"{columns[0]} works only for tasks that are files: omit it.")
    runs = planned(args, tasks)

    from rich.console import Console  # what follows imports torch: the options are in order

    from open_r1.engine.opening import open_engine
    from open_r1.evaluation.results import answer_notes, results_table
    from open_r1.evaluation.run import prepare, run_benchmark

    hide_library_bars()
    problems = [load_problems(task, args.data_dir, args.limit, args) for task in tasks]
    engine = open_engine(engine_options)
    output = args.output or default_output(engine_options.model, engine_options.revision)
    console = Console()
    benchmarks = [
        prepare(task, rows, engine_options.model, engine, protocol, output / folder, ks=wanted, console=console)
        for task, rows in zip(tasks, problems, strict=True)
        for protocol, folder, wanted in runs[task.name]
    ]
    engine.reserve(max(benchmark.longest for benchmark in benchmarks))
    results = [run_benchmark(benchmark, console) for benchmark in benchmarks]
    engine.engine.close()
    several = len(args.protocol) > 1
    for name in args.protocol:
        found = [result for result in results if result["protocol"]["name"] == name]
        if several:
            console.print(f"[bold]{name}[/bold]")
        console.print(results_table(found))
        for note in answer_notes(found):
            console.print(note, soft_wrap=True, highlight=False, markup=False)
    folders = [output / name for name in args.protocol] if several else [output]
    read = " and ".join(shlex.join(["open-r1", "report", str(folder)]) for folder in folders)
    console.print(f"Every sample is in {output}; to read them: {read}", soft_wrap=True, highlight=False)


def planned(args: EvaluateOptions, tasks: Sequence[Task]) -> "dict[str, list[tuple[Protocol, Path, Sequence[int]]]]":
    """For each task, by name: its protocols, with the folder in the output and the pass@k to report of each. Together
    with another protocol, `greedy` is not changed by options: one answer, at temperature 0."""
    from open_r1.evaluation.protocol import protocol_for

    several = len(args.protocol) > 1
    runs: dict[str, list[tuple[Protocol, Path, Sequence[int]]]] = {}
    for task in tasks:
        for name in args.protocol:
            plain = several and name == "greedy"
            protocol = protocol_for(
                task,
                name,
                num_samples=None if plain else args.num_samples,
                temperature=None if plain else args.temperature,
                top_p=None if plain else args.top_p,
                max_new_tokens=args.max_new_tokens,
                seed=args.seed,
                system_prompt=args.system_prompt,
            )
            folder = Path(name if several else "") / folder_name(task.name)
            runs.setdefault(task.name, []).append((protocol, folder, () if plain else args.k))
    return runs


def default_output(model: str, revision: str | None = None) -> Path:
    """`evaluation` in the folder of a local model, else a folder here with the name (and revision) of the model."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / "evaluation"
    name = model.rstrip("/").rpartition("/")[2]
    return Path("evaluation") / (name if revision is None else f"{name}@{revision.replace('/', '_')}")


def __getattr__(name: str) -> Any:
    """`TASKS_TABLE` for lighteval (`--custom-tasks src/open_r1/evaluate.py`); exists only inside lighteval."""
    if name == "TASKS_TABLE" and "lighteval" in sys.modules:
        from open_r1.evaluation.lighteval_tasks import tasks_table

        return tasks_table()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    exit_with_sentence(main)
