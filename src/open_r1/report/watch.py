"""`open-r1 watch DIR...`: shows runs on a live page while they train.

    open-r1 watch runs/grpo
    open-r1 watch runs/grpo runs/other --port 9000

It only reads the files of the runs. Start it as soon as they have begun, or later. `open-r1 report DIR` saves the
same page.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from open_r1.options import parse_options
from open_r1.options.annotations import Positional, Range
from open_r1.report.run_data import RunPages
from open_r1.report.run_page import live_page
from open_r1.report.serve import PageServer, serve


@dataclass(kw_only=True)
class WatchOptions:
    """Runs and server."""

    runs: Annotated[list[Path], Positional("DIR")]
    """Folders of runs (their output_dir). Several runs share the same charts."""
    port: Annotated[int | None, Range(at_least=0, at_most=65535)] = None
    """Port on the loopback address. Default: 8421, or another if that is taken."""


def main(argv: list[str] | None = None) -> None:
    """Serves until Ctrl-C. Raises `UserError` for mistakes that the user can fix."""
    argv = sys.argv[1:] if argv is None else argv
    (args,) = parse_options(argv, WatchOptions, prog="open-r1 watch", description=__doc__ or "")
    pages = RunPages(args.runs)
    serve(PageServer(live_page(pages), pages.get, args.port), "Watching")
