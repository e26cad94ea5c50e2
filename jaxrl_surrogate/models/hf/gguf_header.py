"""Checks that a GGUF file is large enough for what its header announces.

The library `gguf` trusts the counts in a file, even one of 2^60. This check runs before
the library reads the file.
"""

import mmap
import struct
from pathlib import Path

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
# Bytes of the shortest value with its name, and of the shortest tensor's entry.
_VALUE, _TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8


def check_header(path: Path) -> None:
    """Check the counts and lengths in the metadata of a little-endian file.

    Raises:
      ValueError: it is no GGUF file of version 2 or 3, or its header announces more
        than the file holds.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        if size < 24:
            raise ValueError(f"it has {size} bytes, no header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(data, size)


def _walk(data, size):
    magic, version, tensors, values = struct.unpack_from("<4sIQQ", data, 0)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it does not begin as a GGUF file of version 2 or 3 does")
    _expect(tensors * _TENSOR + values * _VALUE, size - 24, "tensors and values")
    at = 24
    for _ in range(values):
        at = _after_string(data, at, size)
        at = _after_value(data, at, size)


def _after_value(data, at, size):
    _expect(4, size - at, "a value")
    (kind,) = struct.unpack_from("<I", data, at)
    at += 4
    if kind == _STRING:
        return _after_string(data, at, size)
    count = 1
    if kind == _ARRAY:
        _expect(12, size - at, "an array")
        kind, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if kind == _STRING:
            _expect(8 * count, size - at, "texts")
            for _ in range(count):
                at = _after_string(data, at, size)
            return at
    if kind not in _WIDTHS:
        raise ValueError(f"a value of the unknown kind {kind}")
    _expect(_WIDTHS[kind] * count, size - at, "numbers")
    return at + _WIDTHS[kind] * count


def _after_string(data, at, size):
    _expect(8, size - at, "a text")
    (length,) = struct.unpack_from("<Q", data, at)
    _expect(length, size - at - 8, "a text")
    return at + 8 + length


def _expect(needed, left, what):
    if needed > left:
        raise ValueError(f"{what} of {needed} bytes, where {left} are left")
