"""Kernels for the text of JSON messages: blanks, strings with their escapes, and whether two spans are the same."""

from __future__ import annotations

import numpy as np

from thalweg.graph_store.kernel import kernel, merged_kernel

_PLAIN = np.array([32 <= byte < 127 and byte not in b'"\\' for byte in range(256)])
_LETTERS, _MEANT = (np.array([*letters], np.uint8) for letters in (b'"\\/bfnrt', b'"\\/\b\f\n\r\t'))


@merged_kernel
def blanks(data, at, end):  # type: ignore[no-untyped-def]
    """The first byte from `at` on that is no blank.

    >>> int(blanks(np.frombuffer(b"  x", np.uint8), 0, 3))
    2
    """
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@merged_kernel
def read_text(data, at, end):  # type: ignore[no-untyped-def]
    """Where the text that begins at `at` ends, and the byte behind its quote; -1 where it is to be handed over.

    >>> data = np.frombuffer(bytearray(b'"a' + bytes([92]) + b'/b",'), np.uint8)
    >>> [int(at) for at in read_text(data, 1, 7)], data[1:4].tobytes()
    ([4, 6], b'a/b')
    """
    while at < end and _PLAIN[data[at]]:
        at += 1
    if at < end and data[at] == 34:
        return at, at + 1
    return _unescape(data, at, end)


@kernel
def _unescape(data, at, end):  # type: ignore[no-untyped-def]
    """`read_text` for what is not plain: valid UTF-8 as it is, escapes replaced by the bytes they stand for."""
    out = at
    while at < end:
        byte = data[at]
        if byte == 34:
            return out, at + 1
        if byte == 92:
            code, at = _escape(data, at, end)
            if code < 0:
                break
            out = _put(data, out, code)
            continue
        size = _size(data, at, end)
        if size == 0:
            break
        for k in range(size):
            data[out + k] = data[at + k]
        out += size
        at += size
    return np.int64(-1), np.int64(-1)


@kernel
def _escape(data, at, end):  # type: ignore[no-untyped-def]
    """The character that the escape at `at` stands for, and the byte behind it; -1 where there is none, or half one."""
    if at + 1 >= end:
        return np.int64(-1), at
    letter = data[at + 1]
    if letter == 117:
        code = _hex(data, at + 2, end)
        if code < 0xD800 or code > 0xDFFF:
            return code, at + 6
        if code > 0xDBFF or at + 12 > end or data[at + 6] != 92 or data[at + 7] != 117:
            return np.int64(-1), at
        low = _hex(data, at + 8, end)
        if low < 0xDC00 or low > 0xDFFF:
            return np.int64(-1), at
        return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), at + 12
    for k in range(_LETTERS.shape[0]):
        if letter == _LETTERS[k]:
            return np.int64(_MEANT[k]), at + 2
    return np.int64(-1), at


@kernel
def _hex(data, at, end):  # type: ignore[no-untyped-def]
    """The number of the four hexadecimal digits at `at`; -1 where they are not there."""
    if at + 4 > end:
        return np.int64(-1)
    code = np.int64(0)
    for k in range(at, at + 4):
        digit = np.int64(data[k])
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= digit | 32 <= 102:
            digit = (digit | 32) - 87
        else:
            return np.int64(-1)
        code = code * 16 + digit
    return code


@kernel
def _put(data, out, code):  # type: ignore[no-untyped-def]
    """Write a character as UTF-8; where it ends."""
    if code < 0x80:
        data[out] = code
        return out + 1
    size = 2 + (code >= 0x800) + (code >= 0x10000)
    for k in range(size - 1, 0, -1):
        data[out + k] = 0x80 | (code & 0x3F)
        code >>= 6
    data[out] = (0xF00 >> size) & 0xFF | code
    return out + size


@kernel
def _size(data, at, end):  # type: ignore[no-untyped-def]
    """Bytes of the character at `at` as the Unicode standard allows them (table 3-7); 0 where it does not."""
    first = data[at]
    if first < 0x80:
        return 1 if first >= 32 and first != 127 else 0
    size = 2 + (first >= 0xE0) + (first >= 0xF0)
    if first < 0xC2 or first > 0xF4 or at + size > end:
        return 0
    low, high = 0x80, 0xBF
    if first == 0xE0:
        low = 0xA0
    elif first == 0xED:
        high = 0x9F
    elif first == 0xF0:
        low = 0x90
    elif first == 0xF4:
        high = 0x8F
    for k in range(at + 1, at + size):
        if data[k] < low or data[k] > high:
            return 0
        low, high = 0x80, 0xBF
    return size


@merged_kernel
def same(data, a, b, letters, first, last):  # type: ignore[no-untyped-def]
    """Whether data[a:b] is letters[first:last].

    >>> bool(same(np.frombuffer(b"abc", np.uint8), 1, 3, np.frombuffer(b"bc", np.uint8), 0, 2))
    True
    """
    if b - a != last - first:
        return False
    for k in range(b - a):
        if data[a + k] != letters[first + k]:
            return False
    return True
