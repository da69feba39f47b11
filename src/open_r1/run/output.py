"""Output that goes on without its reader: `open-r1 sft ... | head -1` trains to the end and saves the model."""

import io
import os
import sys
from typing import Any


class _UntilTheReaderLeaves(io.FileIO):
    """A file descriptor that is redirected to nowhere once nobody reads from its pipe any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From now on a closed pipe behind standard output or standard error does not end this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):  # somebody else has taken it, a test for one
            continue
        stream.flush()
        raw = _UntilTheReaderLeaves(stream.fileno(), "w", closefd=False)
        buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)
        wrapped = io.TextIOWrapper(
            buffer,
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, wrapped)
