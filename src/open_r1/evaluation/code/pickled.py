"""Reads a pickled string without running a pickle.

LiveCodeBench packs its private tests as base64 of zlib of a pickle with one string. A pickle is a program. This reader
runs nothing: it lists the instructions, and refuses all but those of such a string (PEP 307, PEP 3154).
"""

import base64
import pickletools
import zlib

MAX_BYTES = 1 << 30
"""Largest unpacked text."""
TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
BESIDE = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
"""Instructions that a pickle of a string has in addition to `TEXT`."""
PROTOCOLS = [bytes([0x80, number]) for number in range(2, 6)]


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
    if data[:2] not in PROTOCOLS:
        raise ValueError("it is no pickle of protocol 2 to 5")
    texts: list[str] = []
    finished = False
    try:
        for instruction, argument, at in pickletools.genops(data):
            if instruction.name in TEXT:
                texts.append(str(argument))
            elif instruction.name not in BESIDE:
                break
            finished = at == len(data) - 1
    except ValueError as error:
        raise ValueError(f"the pickle is damaged ({error})") from None
    if len(texts) != 1 or not finished:
        raise ValueError("the pickle does not hold one string and nothing else")
    return texts[0]
