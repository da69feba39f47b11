"""Runs entry scripts: users see their mistakes as a sentence, never as a stack trace."""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from open_r1.errors import LOST_PEER, Interrupted, UserError, first_line, one_line
from open_r1.run.console import survive_broken_pipes

OUT_OF_MEMORY = (
    "out of GPU memory outside of training ({reason}): check with nvidia-smi whether another program uses the GPU, "
    "lower the engine's share of memory, or use a larger GPU or a smaller model."
)
FULL = "Make room, and run the same command: nothing that was saved is lost."
DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL) | {
    errno.EROFS: "Use another path, or make it writable.",
    errno.ENAMETOOLONG: "Use a shorter path.",
}
"""What to do about an error of the disk, wherever it strikes."""
FORBIDDEN = dict.fromkeys((errno.EACCES, errno.EPERM), "Use another path, or change its permissions.")
"""What to do about a file that may not be read, written or run. Signals and sockets fail with the same numbers, but
without the name of a file."""
LOST_CONNECTION = "training process {rank} lost the connection to another one, which has ended or hangs: {reason}."


def exit_with_sentence(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and exits: 0 when it returns, 2 after a UserError or an error of the disk, 75 after Interrupted,
    76 if another training process is gone, 130 after Ctrl-C.

    If the reader of its output disconnects (`... | head -1`), `main` continues without a console.
    """
    survive_broken_pipes()
    try:
        main()
    except UserError as error:
        if first_to_say(str(error)):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        _leave_process_group()
        sys.exit(Interrupted.EXIT_CODE)
    except OSError as error:
        remedies = DISK | FORBIDDEN if error.filename else DISK
        if error.errno not in remedies:
            raise
        if first_to_say(str(error)):
            place = f"{error.filename}: " if error.filename else ""
            print(f"error: {place}{os.strerror(error.errno)}. {remedies[error.errno]}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if lost_peer(error):
            if first_to_say(LOST_CONNECTION):  # whatever the rank and the reason
                reason = re.sub(r"^\[\S+\] ", "", one_line(error)).split(". ")[0]  # gloo begins with its source line
                print(LOST_CONNECTION.format(rank=os.environ.get("RANK", "0"), reason=reason), file=sys.stderr)
            sys.exit(LOST_PEER)
        if type(error).__name__ != "OutOfMemoryError":  # of torch, which not every command imports
            raise
        print(f"error: {OUT_OF_MEMORY.format(reason=first_line(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        default = "Interrupted. Run the same command to continue from what was saved."
        print(f"\n{stop if stop.args else default}", file=sys.stderr)
        sys.exit(130)
    _leave_process_group()
    sys.exit(0)


def first_to_say(message: str) -> bool:
    """Whether no other training process of this node has printed `message`. They share the folder that torch's agent
    gives each of them for an error file."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or not Path(file).parents[1].is_dir():
        return True
    try:
        (Path(file).parents[1] / hashlib.sha256(message.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a full disk may be what the message is about
        return True
    return True


def lost_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because another process is gone or does not answer. NCCL and torch's store raise
    classes of their own, gloo a RuntimeError with a line of its source."""
    return type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError") or "/gloo/" in str(error)


def _leave_process_group() -> None:
    """Ends the threads of collectives, which could otherwise abort the interpreter when it exits."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
