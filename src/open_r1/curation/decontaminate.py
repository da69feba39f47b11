"""`open-r1 data decontaminate`: drops rows whose problem occurs in a benchmark.

    open-r1 data decontaminate data/verified --against math_500.jsonl aime24.jsonl --output data/clean
    open-r1 data decontaminate data/verified --against HuggingFaceH4/MATH-500:test openai/gsm8k@main:test --dry-run

Two problems match in one of three cases. They are the same except for case, white space, and LaTeX's spacing and
synonyms. Or most n-grams of the shorter one occur in the other. Or one is a near copy of the other with the same
numbers, for example with other names. Problems shorter than an n-gram match only if they are the same. Every matching
pair is recorded in run/pairs.jsonl.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from open_r1.curation.overlap import KnownProblems, Match, shape_of
from open_r1.curation.rows import DatasetWriter, ProblemColumn, Report, RowOptions, load, problems_in, take
from open_r1.data.columns import PROBLEMS, named_or_first, prompt_path
from open_r1.data.load import load_split, source_name
from open_r1.engine.options import Count
from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.options.annotations import Range

SHOWN = 10
"""Pairs that a dry run prints."""


@dataclass(kw_only=True)
class OverlapOptions:
    """When two problems match."""

    ngram: Count = 8
    """Length of an n-gram in tokens."""
    overlap: Annotated[float, Range(above=0, at_most=1)] = 0.7
    """Share of the shorter problem's n-grams that the other one must have."""
    near: Annotated[float, Range(at_least=0, below=1)] = 0.5
    """Jaccard similarity of near copies; 0 turns off the search for them."""

    def known_problems(self) -> KnownProblems:
        """Empty, with these bounds."""
        return KnownProblems(self.ngram, self.overlap, self.near)


@dataclass(kw_only=True)
class DecontaminateOptions(ProblemColumn, OverlapOptions, RowOptions):
    """Benchmarks."""

    against: list[str]
    """Benchmarks: files, folders or hub ids (ID, ID:SPLIT, ID@CONFIG:SPLIT)."""
    against_column: str | None = None
    """Column with the benchmarks' problems. Default: as for `prompt_column`."""


def main(argv: list[str] | None = None) -> None:
    """Decontaminates, and reports every pair. Raises UserError."""
    (args,) = parse_options(argv, DecontaminateOptions, prog="open-r1 data decontaminate", description=__doc__)

    dataset = load(args)
    path = prompt_path(dataset, args.prompt_column, PROBLEMS)
    known, texts = read_benchmarks(args)
    report, pairs = Report("decontaminate"), []
    writer = DatasetWriter(args)

    @lru_cache(maxsize=1024)  # the answers to one problem stand together
    def find(text: str) -> Match | None:
        return known.find(shape_of(text, args.ngram))

    for batch in problems_in(dataset, path):
        clean = []
        for row, text in batch:
            report.read += 1
            match = find(text)
            if match is None:
                clean.append(row)
                continue
            key: Any = match.key
            name, number = key
            report.drop(f"{match.kind}, {name}", f"row {row + 1}")
            pair = {"row": row, "benchmark": name, "benchmark_row": number, "kind": match.kind, "score": match.score}
            pairs.append(pair | {"problem": text, "benchmark_problem": texts[match.key]})
        report.kept += len(clean)
        writer.add(take(dataset, clean))
    report.figures["benchmark problems"] = len(known)
    if args.dry_run:
        show_pairs(pairs)
    writer.write_lines("pairs.jsonl", (json.dumps(pair, ensure_ascii=False) for pair in pairs))
    writer.finish(report, what="Without the problems of these benchmarks.")


def read_benchmarks(args: DecontaminateOptions) -> tuple[KnownProblems, dict[Any, str]]:
    """The problems of `args.against`, by `(benchmark, row)`. Raises `UserError`."""
    known, texts = args.known_problems(), {}
    for named in args.against:
        name, config, split = _parts(named)
        rows = load_split(name, config=config, split=split)
        path = named_or_first(rows, args.against_column, (), "against_column") or prompt_path(rows, None, PROBLEMS)
        short = source_name(rows).rstrip("/").rpartition("/")[2]
        for i, text in (item for batch in problems_in(rows, path) for item in batch):
            if not text.strip():
                raise UserError(f"{named}, row {i + 1}, column {path}: the problem is empty.")
            if (short, i) in texts:
                raise UserError(
                    f"against has two benchmarks with the name {short}: give each one once, under a different name."
                )
            texts[short, i] = text
            known.add((short, i), shape_of(text, args.ngram))
    return known, texts


def show_pairs(pairs: list[dict[str, Any]]) -> None:
    """The first pairs, one per paragraph."""
    console = Console()
    for pair in pairs[:SHOWN]:
        where = f"row {pair['row'] + 1} = {pair['benchmark']} row {pair['benchmark_row'] + 1}"
        console.print(f"{where}, {pair['kind']}, {pair['score']}", style="bold", highlight=False)
        for name in ("problem", "benchmark_problem"):
            console.print("  " + " ".join(pair[name].split())[:300], markup=False, highlight=False, soft_wrap=True)


def _parts(named: str) -> tuple[str, str | None, str]:
    """The parts of `ID@CONFIG:SPLIT`, or a local path, which may have such characters. The default split is `train`."""
    if Path(named).expanduser().exists():
        return named, None, "train"
    name, _, split = named.partition(":")
    name, _, config = name.partition("@")
    return name, config or None, split or "train"
