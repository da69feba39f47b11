"""`open-r1 data pass-rate`: measures how often a model solves each problem, and keeps problems in a range.

    open-r1 data pass-rate --hf-dataset problems.jsonl --prompt-column problem --model M --num-generations 8 \\
        --max-new-tokens 4096 --output data/for-rl
    open-r1 data pass-rate data/traces --min 0.2 --max 0.8 --output data/for-rl

The first command samples into DIR-samples, with all options of `open-r1 generate`. Run it again to continue. The second
command reads the output of `open-r1 generate`. GRPO learns nothing from problems that the model always or never solves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from datasets import Dataset

from open_r1.curation.rows import DatasetWriter, OutputOptions, Report, check_output, take, warn_unfinished
from open_r1.data.load import load_split, require_columns
from open_r1.engine.options import Count, EngineOptions
from open_r1.errors import UserError
from open_r1.generation.generate import generate, read_problems
from open_r1.generation.options import GenerateOptions, SamplingOptions
from open_r1.options import parse_options
from open_r1.options.annotations import Positional
from open_r1.progress_bars import hide_library_bars
from open_r1.sampling.journal import COMPLETION, VERDICT

PER_SAMPLE = {*COMPLETION.names, *VERDICT.names}


@dataclass(kw_only=True)
class BandOptions(OutputOptions):
    """Samples and range."""

    dataset: Annotated[str | None, Positional("[DIR]")] = None
    """Output folder of `open-r1 generate`. Without it, the command samples from the model."""
    min: float = 0.2
    """Lowest rate."""
    max: float = 0.8
    """Highest rate."""

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max <= 1:
            raise UserError(f"min is {self.min} and max is {self.max}: expected 0 <= min <= max <= 1.")


@dataclass(kw_only=True)
class ProblemOptions(SamplingOptions):
    """Problems to sample."""

    hf_dataset: str | None = None
    """Hub id, local folder or file with the problems."""
    num_generations: Count = 8
    """Completions per problem."""


@dataclass(frozen=True)
class SamplerOptions(EngineOptions):
    """Model and engine."""

    model: str = ""
    """Hub id or local folder; with an OpenAI-compatible server, the name under which it serves the model."""


def main(argv: list[str] | None = None) -> None:
    """Samples if a model is given, then filters. Raises UserError."""
    band, problems, engine = parse_options(
        argv,
        BandOptions,
        ProblemOptions,
        SamplerOptions,
        prog="open-r1 data pass-rate",
        description=__doc__,
    )
    if not band.dry_run:
        check_output(band.output)
    hide_library_bars()
    if band.dataset is None:
        band.dataset = str(_sample(band, problems, engine) or "")
        if not band.dataset:
            return
    warn_unfinished(band.dataset)
    samples = load_split(band.dataset)
    require_columns(
        samples, "index", "correct", remedy="Give an output folder of `open-r1 generate`, or --model to sample."
    )
    report = Report("pass-rate")
    chosen = in_band(samples, band.min, band.max, report)
    writer = DatasetWriter(band)
    writer.add(tables(samples, chosen))
    writer.finish(
        report,
        what=f"Problems that the model solves in {band.min:.0%} to {band.max:.0%} of its answers.",
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
    rates = iter(chosen)
    for table in take(samples, [row for row, _, _ in chosen]):
        part = list(islice(rates, len(table)))
        table = table.select([name for name in table.column_names if name not in PER_SAMPLE])
        table = table.append_column("pass_rate", pa.array([rate for _, rate, _ in part], pa.float64()))
        yield table.append_column("graded_answers", pa.array([count for _, _, count in part], pa.int64()))


def _sample(band: BandOptions, problems: ProblemOptions, engine: EngineOptions) -> Path | None:
    """Generates samples next to the output. With `--dry-run`, only prints how many."""
    if not engine.model or problems.hf_dataset is None:
        raise UserError("give an output folder of `open-r1 generate`, or --hf-dataset and --model to sample.")
    if problems.part != (0, 1):
        raise UserError(
            "shard works only with `open-r1 generate`: sample with that, merge the parts, and give the merged folder "
            "here."
        )
    if band.dry_run:
        read = read_problems(problems.hf_dataset, problems)
        read.digest()
        print(f"{len(read)} problems x {problems.num_generations} answers would be sampled (--dry-run).")
        return None
    assert band.output is not None
    samples = band.output.with_name(band.output.name + "-samples")
    generate(GenerateOptions(output=samples, **vars(problems)), problems.with_concurrency(engine))
    return samples
