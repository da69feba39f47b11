"""Pipes between a judge and a program."""

import os
from contextlib import suppress


class Pipes:
    """The judge's ends of a program's stdin and stdout; `given` is the input."""

    def __init__(self, stdin: int, stdout: int, given: bytes) -> None:
        self.input, self.output, self.collected = stdin, stdout, bytearray()
        self._given = memoryview(given)
        self._open = {stdin, stdout}
        for descriptor in (stdin, stdout):
            os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """Collects available output. Returns False at its end."""
        part = os.read(self.output, 1 << 16)
        self.collected += part
        return bool(part)

    def read_rest(self, most: int) -> None:
        """Collects what an ended program has left in the pipe, until there are more than `most` bytes."""
        with suppress(BlockingIOError):
            while len(self.collected) <= most and self.read():
                pass

    def feed(self) -> bool:
        """Writes what fits into the pipe. Returns False after the last byte, or if the program has closed its end."""
        try:
            if self._given:
                self._given = self._given[os.write(self.input, self._given[: 1 << 16]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._given)

    def close_input(self) -> None:
        """Closes stdin, so that the program sees the end of its input."""
        if self.input in self._open:
            self._open.discard(self.input)
            os.close(self.input)

    def close(self) -> None:
        """Closes both ends."""
        self.close_input()
        if self.output in self._open:
            self._open.discard(self.output)
            os.close(self.output)


def filled_pipe(content: bytes) -> int:
    """The read end of a pipe that contains `content`, which must fit into it."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader
