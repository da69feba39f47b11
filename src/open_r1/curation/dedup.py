"""`open-r1 data dedup`: keeps the first of all rows with the same, or nearly the same, problem.

    open-r1 data dedup data/problems.jsonl --output data/unique
    open-r1 data dedup data/problems.jsonl --near 0 --overlap 1 --dry-run

Two problems match under the same rules as in `open-r1 data decontaminate`.
"""

from dataclasses import dataclass

from open_r1.curation.decontaminate import OverlapOptions
from open_r1.curation.overlap import shape_of
from open_r1.curation.rows import DatasetWriter, ProblemColumn, Report, RowOptions, load, problems_in, take
from open_r1.data.columns import PROBLEMS, prompt_path
from open_r1.options import parse_options


@dataclass(kw_only=True)
class DedupOptions(ProblemColumn, OverlapOptions, RowOptions):
    """Input and output."""


def main(argv: list[str] | None = None) -> None:
    """Drops duplicates. Raises UserError."""
    (args,) = parse_options(argv, DedupOptions, prog="open-r1 data dedup", description=__doc__)

    dataset = load(args)
    path = prompt_path(dataset, args.prompt_column, PROBLEMS)
    known, report = args.known_problems(), Report("dedup")
    writer = DatasetWriter(args)
    for batch in problems_in(dataset, path):
        new = []
        for row, text in batch:
            report.read += 1
            shape = shape_of(text, args.ngram)
            match = known.find(shape)
            if match is None:
                known.add(row, shape)
                new.append(row)
            else:
                report.drop(match.kind, f"row {row + 1} = {match.key + 1}")  # type: ignore[operator]
        report.kept += len(new)
        writer.add(take(dataset, new))
    writer.finish(report, what="Without duplicate problems.")
