"""Reads a pickled string without running a pickle.

LiveCodeBench packs its private tests as base64 of zlib of a pickle with one string. A pickle is a program. This reader
knows only the instructions of such a string (PEP 307, PEP 3154), and refuses all others.
"""

import base64
import zlib

MAX_BYTES = 1 << 30
"""Largest unpacked text."""
_LENGTHS = {b"\x8c": 1, b"X": 4, b"\x8d": 8}
"""Instructions that push a string: bytes of its length, little-endian."""
_MEMO = {b"\x94": 0, b"q": 1, b"r": 4}
"""Instructions that note what was pushed: bytes of their argument."""


def unpack_text(packed: str) -> str:
    """The string in `packed`. Raises ValueError for anything else than base64 of zlib of a pickled string."""
    try:
        compressed = base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise ValueError(f"it is not base64 ({error})") from None
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(compressed, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is not compressed with zlib ({error})") from None
    if unpacker.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
    if not unpacker.eof:
        raise ValueError("its compressed data ends too early")
    return read_pickled_text(data)


def read_pickled_text(data: bytes) -> str:
    """The string that the pickle `data` (protocol 2 or newer) holds. Raises ValueError for any other pickle."""
    text: str | None = None
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(data):
            raise ValueError("the pickle ends too early")
        at += count
        return data[at - count : at]

    if take(1) != b"\x80" or not 2 <= take(1)[0] <= 5:
        raise ValueError("it is no pickle of protocol 2 to 5")
    while (code := take(1)) != b".":
        if code == b"\x95":
            take(8)  # length of a frame
        elif code in _LENGTHS and text is None:
            text = take(int.from_bytes(take(_LENGTHS[code]), "little")).decode("utf-8", "surrogatepass")
        elif code in _MEMO and text is not None:
            take(_MEMO[code])
        else:
            raise ValueError(f"the pickle holds more than a string (instruction {code!r} at byte {at - 1})")
    if text is None or at != len(data):
        raise ValueError("the pickle does not hold one string and nothing else")
    return text
