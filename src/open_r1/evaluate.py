"""Benchmarks by DeepSeek's protocol: every sample kept, an interval on every score.

    open-r1 evaluate --model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --tasks math_500,aime24 --output runs/evaluation
    open-r1 evaluate --model runs/grpo --tasks gsm8k --data-dir data --num-samples 4 --max-new-tokens 2048
    open-r1 evaluate --model runs/grpo --tasks gsm8k --data-dir data --protocol greedy,deepseek
    open-r1 evaluate --model NAME --base-url http://localhost:8000/v1 --tasks mine.jsonl

Tasks: {tasks},
reasoning_gym:NAME (with the extra reasoning-gym), or a .jsonl[.gz] or .parquet file with the columns problem and
answer. The same command continues a run that was interrupted. `open-r1 compare` compares two models, `open-r1 report`
makes a page to read the answers.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.engine.arguments import add_engine_options, engine_options, positive, quiet, with_dashes
from open_r1.engine.choose import open_engine
from open_r1.errors import UserError
from open_r1.evaluation.protocol import PROTOCOLS, Protocol, protocol_for
from open_r1.evaluation.results import answer_notes, results_table
from open_r1.evaluation.run import prepare, run_benchmark
from open_r1.evaluation.tasks import TASKS, Task, find_task, folder_name, load_problems, with_prompt
from open_r1.run.entry import exit_with_sentence


def main(argv: list[str] | None = None) -> None:
    """Evaluates as `argv` says (default: the command line). Raises UserError for what the user can mend."""
    args = parser().parse_args(with_dashes(sys.argv[1:] if argv is None else argv))
    tasks = [find_task(name) for name in args.tasks.split(",") if name]
    if len({task.name for task in tasks}) < len(tasks) or not tasks:
        raise UserError(f"tasks is {args.tasks!r}: expected names of different tasks, with commas between.")
    if args.prompt is not None:
        tasks = [with_prompt(task, args.prompt) for task in tasks]
    runs = planned(args, tasks)
    quiet()
    problems = [load_problems(task, args.data_dir, args.limit) for task in tasks]
    engine = open_engine(engine_options(args))
    output = args.output or default_output(args.model, args.revision)
    console = Console()
    benchmarks = [
        prepare(task, asked, args.model, engine, protocol, output / folder, ks=wanted, console=console)
        for task, asked in zip(tasks, problems, strict=True)
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
    read = (
        " and ".join(f"open-r1 report {output / name}" for name in args.protocol)
        if several
        else f"open-r1 report {output}"
    )
    console.print(f"Every sample is in {output}; to read them: {read}", soft_wrap=True, highlight=False)


def planned(args: argparse.Namespace, tasks: Sequence[Task]) -> dict[str, list[tuple[Protocol, Path, Sequence[int]]]]:
    """Of each task, by name: protocols, with the folder of each in the output and the pass@k to report. Beside
    another protocol, `greedy` stays what it is: one answer, at temperature 0."""
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


def parser() -> argparse.ArgumentParser:
    """The options of `open-r1 evaluate`."""
    parser = argparse.ArgumentParser(
        prog="open-r1 evaluate",
        description=(__doc__ or "").format(tasks=", ".join(TASKS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--tasks", required=True, metavar="T,T", help="names of tasks or files, with commas between")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: MODEL/evaluation, or evaluation/MODEL")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with <task>.jsonl[.gz] or <task>.parquet")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N problems of each task")
    sampling = parser.add_argument_group("sampling (default: the task's, by --protocol)")
    sampling.add_argument(
        "--protocol",
        type=protocols,
        default=("deepseek",),
        metavar="P,P",
        help="deepseek (default), greedy, or both with a comma between, each in a folder of its name",
    )
    sampling.add_argument("--num-samples", type=int, metavar="N", help="answers a problem")
    sampling.add_argument("--temperature", type=float, metavar="T")
    sampling.add_argument("--top-p", type=float, metavar="P")
    sampling.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer")
    sampling.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    sampling.add_argument("--system-prompt", metavar="TEXT", help="default: none, as in DeepSeek's protocol")
    sampling.add_argument("--prompt", metavar="TEXT", help="the question, with {problem} in it")
    sampling.add_argument("--k", type=ks, default=(), metavar="K,K", help="pass@k to report besides powers of two")
    add_engine_options(parser)
    return parser


def default_output(model: str, revision: str | None = None) -> Path:
    """Beside a local model, else a folder of its name (and revision) here."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / "evaluation"
    name = model.rstrip("/").rpartition("/")[2]
    return Path("evaluation") / (name if revision is None else f"{name}@{revision.replace('/', '_')}")


def protocols(text: str) -> tuple[str, ...]:
    """Names of different protocols with commas between, for argparse."""
    names = tuple(text.split(","))
    if len(set(names)) < len(names) or not set(names) <= set(PROTOCOLS):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {' or '.join(PROTOCOLS)}, or both with a comma between")
    return names


def ks(text: str) -> tuple[int, ...]:
    """Numbers from 1 on with commas between, for argparse."""
    return tuple(positive(part) for part in text.split(","))


def __getattr__(name: str) -> Any:
    """`TASKS_TABLE` for lighteval (`--custom-tasks src/open_r1/evaluate.py`), in whose environment alone it exists."""
    if name == "TASKS_TABLE" and "lighteval" in sys.modules:
        from open_r1.evaluation.lighteval_tasks import tasks_table

        return tasks_table()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    exit_with_sentence(main)
