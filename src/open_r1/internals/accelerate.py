"""Private names of accelerate."""

from collections.abc import Sequence
from typing import Any


def launch_arguments(words: Sequence[str]) -> Any:
    """The options of `accelerate launch`, merged with its configuration file.

    `_validate_launch_command`: no public function merges file, command line and defaults.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    return _validate_launch_command(launch_command_parser().parse_args(list(words)))[0]


def unprepare(model: object) -> None:
    """Removes everything that `Accelerator.prepare_model` and other code wrapped around the forward pass.

    Accelerate wraps autocast around a model unless it is marked as prepared. A model with the mark but without the
    wrapper would compute in float32.
    """
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(name, None)
