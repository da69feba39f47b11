"""`open-r1 data decontaminate`: drops rows whose problem is in a benchmark.

    open-r1 data decontaminate data/verified --against math_500.jsonl aime24.jsonl --output data/clean
    open-r1 data decontaminate data/verified --against HuggingFaceH4/MATH-500:test openai/gsm8k@main:test --dry-run

A problem counts as known if it is the same but for spelling (case, white space, LaTeX's spacing and synonyms), if most
n-grams of the shorter of the two are in the other, or if it is a near copy with the same numbers (names swapped, words
changed). Problems shorter than an n-gram are known only if the whole is the same. Every pair is in run/pairs.jsonl.
"""

import argparse
import json
import sys
from functools import lru_cache
from typing import Any

from rich.console import Console

from open_r1.curation.overlap import KnownProblems, Match, shape_of
from open_r1.curation.rows import (
    READ,
    DatasetWriter,
    Report,
    add_output_options,
    add_source_options,
    as_text,
    finish,
    load,
    problem_column,
    take,
)
from open_r1.data.load import load_split, source_name
from open_r1.engine.arguments import positive, with_dashes
from open_r1.errors import UserError


def main(argv: list[str] | None = None) -> None:
    """Decontaminates, and reports every pair. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="open-r1 data decontaminate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_options(parser)
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar="B",
        help="files, folders, hub ids (ID, ID:SPLIT, ID@CONFIG:SPLIT)",
    )
    parser.add_argument("--column", metavar="NAME", help="of the problem; default: problem, question, prompt ...")
    parser.add_argument("--against-column", metavar="NAME", help="of the benchmarks' problems; default: as above")
    add_overlap_options(parser)
    add_output_options(parser)
    args = parser.parse_args(with_dashes(sys.argv[1:] if argv is None else argv))

    dataset = load(args)
    column = problem_column(dataset, args.column)
    known, texts = read_benchmarks(args)
    report, pairs = Report("decontaminate"), []
    writer = DatasetWriter(None if args.dry_run else args.output)

    @lru_cache(maxsize=1024)  # the answers to one problem stand together
    def find(text: str) -> Match | None:
        return known.find(shape_of(text, args.ngram))

    problems = dataset.select_columns([column])
    for start in range(0, len(dataset), READ):
        clean = []
        for row, value in enumerate(problems[start : start + READ][column], start):
            report.read += 1
            text = as_text(value)
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
        if clean and not args.dry_run:
            writer.add(take(dataset, clean))
    report.figures["benchmark problems"] = len(known)
    if args.dry_run:
        show_pairs(pairs)
    else:
        writer.write_lines("pairs.jsonl", (json.dumps(pair, ensure_ascii=False) for pair in pairs))
    finish(args, writer, report, what="Without problems of the benchmarks.")


def add_overlap_options(parser: argparse.ArgumentParser) -> None:
    """When two problems count as one."""
    parser.add_argument("--ngram", type=positive, default=8, metavar="N", help="tokens; default: %(default)s")
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.7,
        metavar="S",
        help="share of the shorter's n-grams; default: %(default)s",
    )
    parser.add_argument(
        "--near", type=float, default=0.5, metavar="J", help="similarity of near copies, 0: none; default: %(default)s"
    )


def known_problems(args: argparse.Namespace) -> KnownProblems:
    """Empty, with the bounds of the parsed options. Raises `UserError`."""
    if not 0 < args.overlap <= 1:
        raise UserError(f"overlap is {args.overlap}: expected a share, above 0 and at most 1.")
    if not 0 <= args.near < 1:
        raise UserError(f"near is {args.near}: expected a similarity below 1, or 0 for no search for near copies.")
    return KnownProblems(args.ngram, args.overlap, args.near)


def read_benchmarks(args: argparse.Namespace) -> tuple[KnownProblems, dict[Any, str]]:
    """The problems of `args.against`, by `(benchmark, row)`. Raises `UserError`."""
    known, texts = known_problems(args), {}
    for named in args.against:
        name, config, split = _parts(named)
        rows = load_split(name, config=config, split=split)
        column = problem_column(rows, args.against_column)
        short = source_name(rows).rstrip("/").rpartition("/")[2]
        for i, value in enumerate(rows.select_columns([column])[column]):
            text = as_text(value)
            if not text.strip():
                raise UserError(f"{named}, row {i + 1}, column {column}: the problem is empty.")
            if (short, i) in texts:
                raise UserError(f"against names {short} twice: give each benchmark once, under a name of its own.")
            texts[short, i] = text
            known.add((short, i), shape_of(text, args.ngram))
    return known, texts


def show_pairs(pairs: list[dict[str, Any]], most: int = 10) -> None:
    """The first pairs, one under the other."""
    console = Console()
    for pair in pairs[:most]:
        where = f"row {pair['row'] + 1} = {pair['benchmark']} row {pair['benchmark_row'] + 1}"
        console.print(f"{where}, {pair['kind']}, {pair['score']}", style="bold", highlight=False)
        for name in ("problem", "benchmark_problem"):
            console.print("  " + " ".join(pair[name].split())[:300], markup=False, highlight=False, soft_wrap=True)


def _parts(named: str) -> tuple[str, str | None, str]:
    """`ID@CONFIG:SPLIT` in its parts; the split is `train` unless named."""
    name, _, split = named.partition(":")
    name, _, config = name.partition("@")
    return name, config or None, split or "train"
