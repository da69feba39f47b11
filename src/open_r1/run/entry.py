"""How entry scripts end: users see a sentence, never a stack trace, for what they can mend themselves."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from open_r1.errors import Interrupted, UserError


def exit_with_sentence(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and exits: 0 when it returns, 2 after a UserError, 75 after Interrupted, 130 after Ctrl-C."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        _leave_process_group()
        sys.exit(Interrupted.EXIT_CODE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has left: `... | head`
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from what was saved, if anything was.", file=sys.stderr)
        sys.exit(130)
    _leave_process_group()
    sys.exit(0)


def _leave_process_group() -> None:
    """Ends the threads of collectives, with which an interpreter that just ends now and then aborts."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def quiet_libraries() -> None:
    """Takes away the bars of loading, which would stand among ours."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
