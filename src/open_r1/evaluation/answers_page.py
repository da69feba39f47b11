"""`open-r1 report DIR`: writes a self-contained page of a training run, or of the answers of an evaluation.

open-r1 report runs/grpo
open-r1 report runs/grpo/evaluation
open-r1 report runs/grpo/evaluation --output answers.html --max-megabytes 50
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from open_r1.evaluation.results import by_problem
from open_r1.evaluation.store import finished_folders, read_results, read_samples
from open_r1.files import explain_output
from open_r1.options import parse_options
from open_r1.options.annotations import Positional, Range
from open_r1.report.evaluation_page import COLUMNS, Page, TaskAnswers, write_evaluation_page
from open_r1.report.run_page import write_run_page


def write_report(root: Path, output: Path | None = None, max_megabytes: float = 200.0) -> Page:
    """Writes the page of all finished benchmarks in `root`. Default: to `root/report.html`.
    Raises `UserError`."""
    tasks = [
        TaskAnswers(read_results(folder), by_problem(read_samples(folder, COLUMNS)))
        for folder in finished_folders(root)
    ]
    page = output or root / "report.html"
    with explain_output(page, "--output"):
        return write_evaluation_page(page, tasks, max_megabytes)


@dataclass(kw_only=True)
class ReportOptions:
    """Evaluation and page."""

    folder: Annotated[Path, Positional("DIR")]
    """The output_dir of a run, or the output folder of `open-r1 evaluate`."""
    output: Path | None = None
    """File of the page. Default: DIR/report.html."""
    max_megabytes: Annotated[float, Range(above=0)] = 200.0
    """Largest size of the page; it omits texts if necessary."""


def main(argv: list[str] | None = None) -> None:
    """Writes the page and prints its path. Raises UserError."""
    (args,) = parse_options(argv, ReportOptions, prog="open-r1 report", description=__doc__)
    if (args.folder / "run" / "config.yaml").is_file():
        _report_run(args)
        return
    page = write_report(args.folder, args.output, args.max_megabytes)
    print(f"{page.path} ({page.megabytes:.1f} MB)")
    if page.carried < page.num_samples:
        print(f"It contains the text of {page.carried} of {page.num_samples} samples per problem (--max-megabytes).")


def _report_run(args: ReportOptions) -> None:
    page = args.output or args.folder / "report.html"
    with explain_output(page, "--output"):
        saved = write_run_page(args.folder, page, args.max_megabytes)
    print(f"{saved.path} ({saved.megabytes:.1f} MB)")
    if saved.damaged:
        print(f"The rollouts of these steps cannot be read: {', '.join(map(str, saved.damaged))}.")
    if saved.carried + len(saved.damaged) < saved.steps:
        print(f"It contains the completions of {saved.carried} of {saved.steps} steps (--max-megabytes).")
    if (args.folder / "evaluation").is_dir():
        command = shlex.join(["open-r1", "report", str(args.folder / "evaluation")])
        print(f"To read the answers of its benchmarks: {command}")
