"""`open-r1 data pass-rate`: how often a model solves each problem; problems in a band stay.

    open-r1 data pass-rate --hf-dataset problems.jsonl --prompt-column problem --model M --num-generations 8 \\
        --max-new-tokens 4096 --output data/for-rl
    open-r1 data pass-rate data/traces --min 0.2 --max 0.8 --output data/for-rl

The first samples with all options of `open-r1 generate`, into DIR-samples; the same command continues. The second
reads what `open-r1 generate` wrote. Problems that are always or never solved teach GRPO nothing.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from open_r1 import generate
from open_r1.curation.rows import (
    READ,
    DatasetWriter,
    Report,
    add_output_options,
    check_output,
    finish,
    take,
    warn_unfinished,
)
from open_r1.data.load import load_split, require_columns
from open_r1.engine.arguments import add_engine_options, quiet, with_dashes
from open_r1.errors import UserError
from open_r1.generation.arguments import add_data_options, add_sampling_options
from open_r1.generation.store import COMPLETION, VERDICT

PER_SAMPLE = {*COMPLETION.names, *VERDICT.names}


def main(argv: list[str] | None = None) -> None:
    """Samples if a model is given, then filters. Raises UserError for what the user can mend."""
    args = _parse(with_dashes(sys.argv[1:] if argv is None else argv))
    if not 0 <= args.min <= args.max <= 1:
        raise UserError(f"min is {args.min} and max {args.max}: expected shares with 0 <= min <= max <= 1.")
    if not args.dry_run:
        check_output(args.output)
    if args.dataset is None:
        args.dataset = str(_sample(args) or "")
        if not args.dataset:
            return
    warn_unfinished(args.dataset)
    samples = load_split(args.dataset)
    require_columns(samples, "index", "correct", remedy="Give a folder of `open-r1 generate`, or --model to sample.")
    report = Report("pass-rate")
    chosen = in_band(samples, args.min, args.max, report)
    writer = DatasetWriter(None if args.dry_run else args.output)
    for table in tables(samples, chosen) if not args.dry_run else ():
        writer.add(table)
    names = ("dataset", "output", "dry_run", "min", "max")
    shown = argparse.Namespace(**{name: getattr(args, name) for name in names})
    finish(
        shown,
        writer,
        report,
        what=f"Problems that the model solves in {args.min:.0%} to {args.max:.0%} of its answers.",
        columns={"pass_rate": "share of right answers", "graded_answers": "of how many"},
    )


def in_band(samples: Dataset, low: float, high: float, report: Report) -> list[tuple[int, float, int]]:
    """`(row of the first sample, pass rate, graded samples)` of the problems with `low` <= rate <= `high`."""
    index = np.asarray(samples.with_format("arrow")[:]["index"])
    correct = samples.with_format("arrow")[:]["correct"].to_pylist()
    graded = np.array([value is not None for value in correct], dtype=bool)
    right = np.array([value is True for value in correct], dtype=bool)
    _, first, problem = np.unique(index, return_index=True, return_inverse=True)
    counts = np.bincount(problem, weights=graded, minlength=len(first)).astype(int)
    rights = np.bincount(problem, weights=right, minlength=len(first))
    chosen = []
    report.read = len(first)
    for row, count, hits in zip(first.tolist(), counts.tolist(), rights.tolist(), strict=True):
        example = f"row {index[row] + 1}"
        if not count:
            report.drop("ungradable", example)
            continue
        rate = hits / count
        band = min(int(rate * 10), 9)
        name = f"rate {band * 10}% to {band * 10 + 10}%"
        report.figures[name] = report.figures.get(name, 0) + 1
        if rate < low:
            report.drop("too hard", example)
        elif rate > high:
            report.drop("too easy", example)
        else:
            chosen.append((row, rate, count))
    report.figures = dict(sorted(report.figures.items()))
    report.kept = len(chosen)
    return chosen


def tables(samples: Dataset, chosen: list[tuple[int, float, int]]) -> Iterator[pa.Table]:
    """The problems' own columns with their pass rates."""
    for start in range(0, len(chosen), READ):
        part = chosen[start : start + READ]
        table = take(samples, [row for row, _, _ in part])
        table = table.select([name for name in table.column_names if name not in PER_SAMPLE])
        table = table.append_column("pass_rate", pa.array([rate for _, rate, _ in part], pa.float64()))
        yield table.append_column("graded_answers", pa.array([count for _, _, count in part], pa.int64()))


def _sample(args: argparse.Namespace) -> Path | None:
    """Generates beside the output; says what would be asked, with `--dry-run`."""
    if args.model is None or args.hf_dataset is None:
        raise UserError("give a folder of `open-r1 generate`, or --hf-dataset and --model to sample.")
    if args.shard != (0, 1):
        raise UserError("shard is for `open-r1 generate`: sample with that, merge, and give the merged folder here.")
    if args.dry_run:
        problems = generate.read_problems(args)
        problems.digest()
        print(f"{len(problems)} problems x {args.num_generations} answers would be sampled (--dry-run).")
        return None
    output, args.output = args.output, args.output.with_name(args.output.name + "-samples")
    generate.generate(args)
    args.output, samples = output, args.output
    return samples


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="open-r1 data pass-rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", nargs="?", metavar="DIR", help="what `open-r1 generate` wrote; without: sample")
    parser.add_argument("--min", type=float, default=0.2, metavar="S", help="lowest rate; default: %(default)s")
    parser.add_argument("--max", type=float, default=0.8, metavar="S", help="highest rate; default: %(default)s")
    add_output_options(parser)
    add_data_options(parser, required=False)
    add_sampling_options(parser, num_generations=8)
    add_engine_options(parser, servers=False, required=False)
    args = parser.parse_args(argv)
    quiet()
    return args
