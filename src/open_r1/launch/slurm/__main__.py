"""`python -m open_r1.launch.slurm <job> ...`: what the scripts in `slurm/` run on the first node of their job."""

import importlib
import os
import sys

from open_r1.errors import Interrupted, UserError
from open_r1.launch.slurm.job import current_job, finish
from open_r1.run.entry import exit_with_sentence

JOBS = ("train", "evaluate", "generate", "serve", "serve_node")


def main() -> None:
    """Exits with the job's status. Raises UserError before anything is started."""
    name, *words = sys.argv[1:] or [""]
    if name not in JOBS:
        raise UserError(f"there is no job {name!r}: expected one of {', '.join(JOBS)}.")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        status = importlib.import_module(f"open_r1.launch.slurm.{name}").main(words, os.environ)
    except Interrupted:
        status = finish(Interrupted.EXIT_CODE, current_job(os.environ))
    sys.exit(status)


exit_with_sentence(main)
