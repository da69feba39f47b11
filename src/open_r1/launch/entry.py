"""`open-r1 launch`: training on one node or many. Imports torch only after the options are read."""

import os
import sys

from open_r1.launch.options import parse


def main(argv: list[str]) -> None:
    """Exits with the status of the process that failed first. Raises UserError before anything is started."""
    options, recipe, overrides = parse(argv)
    from open_r1.launch.launcher import launch

    sys.exit(launch(options, recipe, overrides, os.environ))
