"""Private names of accelerate."""

from collections.abc import Sequence
from typing import Any


def launch_arguments(words: Sequence[str]) -> Any:
    """The options of `accelerate launch` after its configuration file is read.

    `_validate_launch_command`: the merge of file, command line and defaults has no public name.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    return _validate_launch_command(launch_command_parser().parse_args(list(words)))[0]
