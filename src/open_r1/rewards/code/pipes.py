"""What a judge and a program say to each other."""

import os
from contextlib import suppress


class Pipes:
    """The judge's ends of a program's stdin and stdout."""

    def __init__(self, stdin: int, stdout: int, given: bytes) -> None:
        self.input, self.output, self.collected = stdin, stdout, bytearray()
        self._given = memoryview(given)
        self._open = {stdin, stdout}
        for descriptor in (stdin, stdout):
            os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """Takes what is there; False at the end."""
        part = os.read(self.output, 1 << 16)
        self.collected += part
        return bool(part)

    def read_rest(self, most: int) -> None:
        """Takes what an ended program left in the pipe."""
        with suppress(BlockingIOError):
            while len(self.collected) <= most and self.read():
                pass

    def feed(self) -> bool:
        """Writes what fits; False after the last byte, or when the program reads no more."""
        try:
            if self._given:
                self._given = self._given[os.write(self.input, self._given[: 1 << 16]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._given)

    def close_input(self) -> None:
        """So that the program sees the end of its input."""
        if self.input in self._open:
            self._open.discard(self.input)
            os.close(self.input)

    def close(self) -> None:
        """Closes both."""
        self.close_input()
        if self.output in self._open:
            self._open.discard(self.output)
            os.close(self.output)


def filled_pipe(content: bytes) -> int:
    """Read end of a pipe that holds `content`."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader
