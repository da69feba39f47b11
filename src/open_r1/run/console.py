"""Output that survives the loss of its reader: after `open-r1 ... | head -1` the work continues without a console."""

import io
import os
import stat
import sys
from typing import Any


class _Output(io.FileIO):
    """A file descriptor that becomes the null device when the reader of its pipe disconnects."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def survive_broken_pipes() -> None:
    """Makes writes to `sys.stdout` and `sys.stderr` succeed even if they are pipes without a reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__") and _is_pipe(stream.fileno()):
            stream.flush()
            raw = _Output(stream.fileno(), "w", closefd=False)
            buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)  # python -u buffers nothing
            output = io.TextIOWrapper(
                buffer,
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, output)


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
