"""`open-r1 report DIR`: one self-contained page to read the answers of an evaluation.

open-r1 report runs/grpo/evaluation
open-r1 report runs/grpo/evaluation --output answers.html --max-megabytes 50
"""

import argparse
import sys
from pathlib import Path

from open_r1.errors import UserError
from open_r1.evaluation.store import finished_folders, read_results, read_samples
from open_r1.report.evaluation_page import COLUMNS, Page, TaskAnswers, write_evaluation_page
from open_r1.run.entry import exit_with_sentence


def write_report(root: Path, output: Path | None = None, max_megabytes: float = 200.0) -> Page:
    """Writes the page of all finished benchmarks in `root`, to `root/report.html` unless told otherwise.
    Raises `UserError`."""
    tasks = [TaskAnswers(read_results(folder), read_samples(folder, COLUMNS)) for folder in finished_folders(root)]
    page = output or root / "report.html"
    try:
        return write_evaluation_page(page, tasks, max_megabytes)
    except OSError as error:
        raise UserError(f"{page} cannot be written ({error.strerror or error}): give another --output.") from error


def main(argv: list[str] | None = None) -> None:
    """Writes the page and says where it is. Raises UserError for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="open-r1 report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what open-r1 evaluate wrote")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: DIR/report.html")
    parser.add_argument("--max-megabytes", type=float, default=200.0, metavar="MB", help="default: %(default)s")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if args.max_megabytes <= 0:
        parser.error(f"--max-megabytes is {args.max_megabytes:g}: expected a number above 0")
    page = write_report(args.folder, args.output, args.max_megabytes)
    print(f"{page.path} ({page.megabytes:.1f} MB)")
    if page.carried < page.num_samples:
        print(f"It carries the text of {page.carried} of {page.num_samples} samples a problem (--max-megabytes).")


if __name__ == "__main__":
    exit_with_sentence(main)
