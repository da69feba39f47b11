"""`open-r1 data dedup`: of rows with the same problem, or nearly the same, only the first stays.

    open-r1 data dedup data/problems.jsonl --output data/unique
    open-r1 data dedup data/problems.jsonl --near 0 --overlap 1 --dry-run

Two problems are the same by the tests of `open-r1 data decontaminate`.
"""

import argparse
import sys

from open_r1.curation.decontaminate import add_overlap_options, known_problems
from open_r1.curation.overlap import shape_of
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
from open_r1.engine.arguments import with_dashes


def main(argv: list[str] | None = None) -> None:
    """Drops repetitions. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="open-r1 data dedup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_options(parser)
    parser.add_argument("--column", metavar="NAME", help="of the problem; default: problem, question, prompt ...")
    add_overlap_options(parser)
    add_output_options(parser)
    args = parser.parse_args(with_dashes(sys.argv[1:] if argv is None else argv))

    dataset = load(args)
    column = problem_column(dataset, args.column)
    known, report = known_problems(args), Report("dedup")
    writer = DatasetWriter(None if args.dry_run else args.output)
    problems = dataset.select_columns([column])
    for start in range(0, len(dataset), READ):
        new = []
        for row, value in enumerate(problems[start : start + READ][column], start):
            report.read += 1
            shape = shape_of(as_text(value), args.ngram)
            match = known.find(shape)
            if match is None:
                known.add(row, shape)
                new.append(row)
            else:
                report.drop(match.kind, f"row {row + 1} = {match.key + 1}")  # type: ignore[operator]
        report.kept += len(new)
        if new and not args.dry_run:
            writer.add(take(dataset, new))
    finish(args, writer, report, what="Every problem once.")
