"""Kernels that read JSON events in their common form, straight from the bytes to hashes and numbers.

They know one flat object, texts, plain numbers, and only what keeps every rule of `validation`. A message in any other
form is no error here: it is handed over, whole, to the strict decoder (`json_rows`), which alone says what is wrong
with it. So each step gives a value that `decode`, `value` and `instant` would give too, or it gives up.

First `_scan` writes down where the value of each field stands (`Tokens`), then `_event` reads the fields. A text with
escapes is unescaped in place, which never makes it longer: the bytes are a copy of the messages. The steps are merged
into `read`: called, each would be handed some thirty arrays (measured: 1.0 microseconds a message, 0.48 merged).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.hash import SEED_ID, SEED_ID2, hash_span
from thalweg.graph_store.kernel import kernel, merged_kernel

from .event import FIELDS, MAX_QUANTITY
from .json_text import blanks, read_text, same

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]

STRANGERS = 64
"""Fields outside the schema that are known by name; a message with a further one is handed over."""

ABSENT, NULL, TEXT, INTEGER, FRACTION, LITERAL = range(6)
"""What stands as a value: LITERAL is true or false, FRACTION a number with a point."""

_AT = {field.name: i for i, field in enumerate(FIELDS)}
_EVENT_ID, _TYPE, _TS, _USER, _CURRENCY = (_AT[name] for name in ("event_id", "type", "ts", "user_id", "currency"))
_ITEM, _LINE, _POSITION, _PRICE, _QUANTITY = (_AT[n] for n in ("item_id", "line", "position", "price", "quantity"))
_FIELDS = len(FIELDS)
_HUGE = MAX_QUANTITY
_POWERS = np.array([float(10**i) for i in range(23)])
"""10**22 is the greatest power of ten that a double holds exactly."""
_EXACT = 2**53
_EDGES = np.array([2.0**-0.75, 2.0**-0.5, 2.0**-0.25])
_FAR = np.int64(-(2**63))
_MONTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_LOW = np.uint64(0xFFFFFFFF)


class Table(NamedTuple):
    """Names of fields: those of the schema, the declared features, then strangers as they are met.

    Attributes
    ----------
    letters : uint8, the names one after the other; ends : int64, where each begins, and the last ends
    size : int64 [1], names in the table
    guess : int64, by place in the message: the field that stood there last
    met : int64, messages that carried each
    """

    letters: U8
    ends: I64
    size: I64
    guess: I64
    met: I64


class Tokens(NamedTuple):
    """Where the value of each field of one message stands: kind, and bytes [begin, stop)."""

    kind: I64
    begin: I64
    stop: I64


class Terms(NamedTuple):
    """What the rules of a source ask, as numbers.

    Attributes
    ----------
    default : type of a message that does not say; below 0: it has to say
    low, high : bounds of the time, ms; divisor : of `time.unit`, 0 for "auto", -1 for seconds
    utc : whether a time without a zone is UTC
    words, word_ends, first : the words for nobody, and the first bytes that call for a closer look
    nobody, nobody_user : how many of the words count for an id, and for a user's
    types, type_ends : names of the types
    used, required : bool [fields, types]
    numeric : bool [F]; seeds : uint64 [F]
    name : uint8, the source and "#", and room for a row number; name_end : where the number begins
    """

    default: int
    low: int
    high: int
    divisor: int
    utc: bool
    words: U8
    word_ends: I64
    first: U8
    nobody: int
    nobody_user: int
    types: U8
    type_ends: I64
    used: npt.NDArray[np.bool_]
    required: npt.NDArray[np.bool_]
    numeric: npt.NDArray[np.bool_]
    seeds: U64
    name: U8
    name_end: int


class Columns(NamedTuple):
    """What is read, a column an event, as `intake._fill` wants it; and the index of the message it was read from.

    Attributes
    ----------
    hashes : uint64 [9, n]; numbers : int64 [4, n]; price : float64 [n]
    codes : uint32 [F, n]; values : float64 [F, n], numbers of the numeric features, NaN where there is none
    at : int64 [n]; items : int64 [2, n], where the item id stands in the bytes
    """

    hashes: U64
    numbers: I64
    price: F64
    codes: U32
    values: F64
    at: I64
    items: I64


@merged_kernel
def _number(data, at, end):  # type: ignore[no-untyped-def]
    """Kind and end of the number at `at`; kind -1 where it is none, has an exponent, or is a whole -0."""
    minus = at < end and data[at] == 45
    if minus:
        at += 1
    begin = at
    while at < end and 48 <= data[at] <= 57:
        at += 1
    zero = at > begin and data[begin] == 48
    if at == begin or at - begin > 18 or (zero and at - begin > 1):
        return np.int64(-1), at
    if at == end or (data[at] != 46 and data[at] | 32 != 101):
        return np.int64(-1 if zero and minus else INTEGER), at
    begin = at + 1
    at = begin
    while at < end and 48 <= data[at] <= 57:
        at += 1
    if at == begin or data[begin - 1] != 46 or (at < end and data[at] | 32 == 101):
        return np.int64(-1), at
    return np.int64(FRACTION), at


@merged_kernel
def _literal(data, at, end):  # type: ignore[no-untyped-def]
    """Kind and end of true, false or null at `at`; kind -1 where it is none of them."""
    if end - at >= 4:
        a, b, c, d = data[at], data[at + 1], data[at + 2], data[at + 3]
        if a == 110 and b == 117 and c == 108 and d == 108:
            return np.int64(NULL), at + 4
        if a == 116 and b == 114 and c == 117 and d == 101:
            return np.int64(LITERAL), at + 4
        if end - at >= 5 and a == 102 and b == 97 and c == 108 and d == 115 and data[at + 4] == 101:
            return np.int64(LITERAL), at + 5
    return np.int64(-1), at


@merged_kernel
def _token(data, at, end):  # type: ignore[no-untyped-def]
    """Kind of the value at `at`, its first byte, its end, and the byte after it; kind -1: hand the message over."""
    if at < end and data[at] == 34:
        stop, after = read_text(data, at + 1, end)
        return np.int64(TEXT if stop >= 0 else -1), at + 1, stop, after
    if at < end and data[at] >= 97:
        kind, stop = _literal(data, at, end)
    else:
        kind, stop = _number(data, at, end)
    return kind, at, stop, stop


@merged_kernel
def _field(data, a, b, table, place):  # type: ignore[no-untyped-def]
    """Index of the field named data[a:b]; a new name is put into the table. -1 where there is no room."""
    which = table.guess[place]
    if same(data, a, b, table.letters, table.ends[which], table.ends[which + 1]):
        return which
    count = table.size[0]
    for which in range(count):
        if same(data, a, b, table.letters, table.ends[which], table.ends[which + 1]):
            table.guess[place] = which
            return which
    first = table.ends[count]
    if count + 1 == table.ends.shape[0] or first + b - a > table.letters.shape[0]:
        return np.int64(-1)
    for k in range(b - a):
        table.letters[first + k] = data[a + k]
    table.ends[count + 1] = first + b - a
    table.size[0] = count + 1
    return count


@merged_kernel
def _scan(data, at, end, table, tokens):  # type: ignore[no-untyped-def]
    """Write down the values of the flat object data[at:end]; False where the message is to be handed over."""
    for which in range(table.size[0]):
        tokens.kind[which] = ABSENT
    at = blanks(data, at, end)
    if at == end or data[at] != 123:
        return False
    for place in range(table.guess.shape[0]):
        at = blanks(data, at + 1, end)
        if at >= end or data[at] != 34:
            return False
        stop, after = read_text(data, at + 1, end)
        if stop < 0:
            return False
        which = _field(data, at + 1, stop, table, place)
        at = blanks(data, after, end)
        if which < 0 or at >= end or data[at] != 58:
            return False
        kind, begin, stop, at = _token(data, blanks(data, at + 1, end), end)
        if kind < 0 or (which < table.size[0] and tokens.kind[which] != ABSENT):
            return False
        tokens.kind[which], tokens.begin[which], tokens.stop[which] = kind, begin, stop
        at = blanks(data, at, end)
        if at >= end or (data[at] != 44 and data[at] != 125):
            return False
        if data[at] == 125:
            return blanks(data, at + 1, end) == end
    return False


@merged_kernel
def _whole(data, a, b):  # type: ignore[no-untyped-def]
    """The number whose digits are data[a:b]; -1 where there are none, more than 18, or something else."""
    if a >= b or b - a > 18:
        return np.int64(-1)
    value = np.int64(0)
    for k in range(a, b):
        digit = np.int64(data[k]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@merged_kernel
def _type(data, tokens, terms):  # type: ignore[no-untyped-def]
    """Type of the event; below 0: hand it over."""
    kind, a, b = tokens.kind[_TYPE], tokens.begin[_TYPE], tokens.stop[_TYPE]
    if kind == ABSENT or kind == NULL or (kind == TEXT and a == b):
        return np.int64(terms.default)
    if kind == TEXT:
        for t in range(terms.type_ends.shape[0] - 1):
            if same(data, a, b, terms.types, terms.type_ends[t], terms.type_ends[t + 1]):
                return np.int64(t)
    return np.int64(-1)


@merged_kernel
def _day(year, month, day):  # type: ignore[no-untyped-def]
    """Days from 1970-01-01 to a date; `_FAR` where there is no such date, or it lies outside 1970 to 2399."""
    if year < 1970 or year > 2399 or month < 1 or month > 12 or day < 1:
        return _FAR
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _MONTHS[month] + (1 if leap and month == 2 else 0):
        return _FAR
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719_162 + day - 1
    for m in range(1, month):
        days += _MONTHS[m]
    return days + (1 if leap and month > 2 else 0)


@merged_kernel
def _zone(data, at, b, utc):  # type: ignore[no-untyped-def]
    """Offset in ms that data[at:b] says: Z, +HH:MM, or nothing where that is UTC; `_FAR` for anything else."""
    if at == b:
        return np.int64(0) if utc else _FAR
    if b - at == 1:
        return np.int64(0) if data[at] | 32 == 122 else _FAR
    if b - at != 6 or (data[at] != 43 and data[at] != 45) or data[at + 3] != 58:
        return _FAR
    hours, minutes = _whole(data, at + 1, at + 3), _whole(data, at + 4, at + 6)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return _FAR
    span = (hours * 60 + minutes) * 60_000
    return -span if data[at] == 45 else span


@merged_kernel
def _instant(data, a, b, utc):  # type: ignore[no-untyped-def]
    """Ms of YYYY-MM-DDTHH:MM:SS, a fraction and a zone; `_FAR` where it is not of that form."""
    if b - a < 19 or data[a + 4] != 45 or data[a + 7] != 45 or data[a + 13] != 58 or data[a + 16] != 58:
        return _FAR
    if data[a + 10] | 32 != 116 and data[a + 10] != 32:
        return _FAR
    days = _day(_whole(data, a, a + 4), _whole(data, a + 5, a + 7), _whole(data, a + 8, a + 10))
    hour, minute, second = _whole(data, a + 11, a + 13), _whole(data, a + 14, a + 16), _whole(data, a + 17, a + 19)
    if days == _FAR or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return _FAR
    at, millis = a + 19, np.int64(0)
    if at < b and (data[at] == 46 or data[at] == 44):
        first, unit = at + 1, np.int64(100)
        at = first
        while at < b and 48 <= data[at] <= 57:
            millis += (np.int64(data[at]) - 48) * unit
            unit //= 10
            at += 1
        if at == first or at - first > 9:
            return _FAR
    span = _zone(data, at, b, utc)
    if span == _FAR:
        return _FAR
    return days * 86_400_000 + ((hour * 60 + minute) * 60 + second) * 1000 + millis - span


@merged_kernel
def _time(data, tokens, terms):  # type: ignore[no-untyped-def]
    """Ms of the event's time, `_FAR` to hand it over; a whole number goes by `instant.from_integer`'s bands."""
    kind, a, b = tokens.kind[_TS], tokens.begin[_TS], tokens.stop[_TS]
    if kind == TEXT and b - a > 18:
        return _instant(data, a, b, terms.utc)
    value = np.int64(-1)
    if kind == INTEGER or (kind == TEXT and b > a and data[a] != 48):
        value = _whole(data, a, b)
    if value < 0:
        return _FAR
    divisor = terms.divisor
    if divisor == 0:
        divisor = 1 if value < 10**14 else 1000 if value < 10**17 else 1_000_000
        if value < 10**11:
            divisor = -1
    if divisor < 0:
        return value * 1000 if value < _EXACT else _FAR
    return value // divisor


@merged_kernel
def _nobody(data, a, b, terms, words):  # type: ignore[no-untyped-def]
    """1 where the id data[a:b] stands for nobody, 0 where it does not, -1 where blanks may make it a question."""
    if a == b:
        return 1
    if terms.first[data[a]] == 0:
        return 0
    for byte in (data[a], data[b - 1]):
        if byte <= 32 or byte >= 127:  # Unicode has blanks of its own
            return -1
    for w in range(words):
        if same(data, a, b, terms.words, terms.word_ends[w], terms.word_ends[w + 1]):
            return 1
    return 0


@merged_kernel
def _is_there(data, tokens, which, terms):  # type: ignore[no-untyped-def]
    """1 where the id field names something, 0 where it is missing or nobody, -1 to hand the message over."""
    kind = tokens.kind[which]
    if kind == ABSENT or kind == NULL:
        return 0
    if kind != TEXT and kind != INTEGER:
        return -1
    words = terms.nobody_user if which == _USER else terms.nobody
    hit = _nobody(data, tokens.begin[which], tokens.stop[which], terms, words)
    return hit if hit < 0 else 1 - hit


@merged_kernel
def _row_name(terms, offset):  # type: ignore[no-untyped-def]
    """Write the digits of a row number behind the source's name; where they end."""
    size, rest = 1, offset // 10
    while rest > 0:
        rest //= 10
        size += 1
    end = terms.name_end + size
    for k in range(size):
        terms.name[end - 1 - k] = 48 + offset % 10
        offset //= 10
    return end


@merged_kernel
def _ids(data, offset, tokens, terms, out, r):  # type: ignore[no-untyped-def]
    """Hashes of the event's id, the other ids and the currency into column r; False to hand it over."""
    kind = out.numbers[0, r]
    there = _is_there(data, tokens, _EVENT_ID, terms)
    if there < 0:
        return False
    if there == 1:
        a, b = tokens.begin[_EVENT_ID], tokens.stop[_EVENT_ID]
        out.hashes[0, r], out.hashes[1, r] = hash_span(data, a, b, SEED_ID), hash_span(data, a, b, SEED_ID2)
    else:
        b = _row_name(terms, offset)
        out.hashes[0, r], out.hashes[1, r] = hash_span(terms.name, 0, b, SEED_ID), hash_span(terms.name, 0, b, SEED_ID2)
    for which in range(_USER, _LINE + 1):
        there = _is_there(data, tokens, which, terms)
        if there < 0 or (there == 0 and terms.required[which, kind]):
            return False
        h = np.uint64(0)
        if there == 1:
            h = hash_span(data, tokens.begin[which], tokens.stop[which], SEED_ID)
        out.hashes[which - _USER + 2, r] = h
    out.items[0, r], out.items[1, r] = tokens.begin[_ITEM], tokens.stop[_ITEM]
    word = tokens.kind[_CURRENCY]
    if word == FRACTION or word == LITERAL:
        return False
    h = np.uint64(0)
    if (word == TEXT or word == INTEGER) and terms.used[_CURRENCY, kind]:
        h = hash_span(data, tokens.begin[_CURRENCY], tokens.stop[_CURRENCY], SEED_ID)
    out.hashes[8, r] = h
    return True


@merged_kernel
def _counted(data, tokens, which, low, high, missing):  # type: ignore[no-untyped-def]
    """A whole number between low and high, as number or text; `missing` where it is null; -2 to hand it over."""
    kind, a, b = tokens.kind[which], tokens.begin[which], tokens.stop[which]
    if kind == ABSENT or kind == NULL:
        return np.int64(missing)
    if (kind != INTEGER and kind != TEXT) or (kind == TEXT and b - a > 1 and data[a] == 48):
        return np.int64(-2)
    value = _whole(data, a, b)
    return value if low <= value <= high else np.int64(-2)


@merged_kernel
def _clear(value):  # type: ignore[no-untyped-def]
    """Whether a number that is right to some bits surely falls into the same `intake` bin as the right one."""
    m = math.frexp(value)[0]
    near = m < 0.5 + 1e-13 or m > 1.0 - 1e-13
    for edge in _EDGES:
        near = near or abs(m - edge) < 1e-13
    return not near


@merged_kernel
def _real(data, tokens, which, exact):  # type: ignore[no-untyped-def]
    """(good, value) of a number not below 0, or its text; NaN where it is null.

    Digits without the point, at most 2**53, divided by an exact power of ten are the right double: one rounding. Up to
    18 digits give it but for some last bits: good where it is not `exact` and its bin is beyond doubt.
    """
    kind, a, b = tokens.kind[which], tokens.begin[which], tokens.stop[which]
    if kind == ABSENT or kind == NULL:
        return True, math.nan
    if kind == TEXT:
        kind, stop = _number(data, a, b)
        if stop != b:
            return False, math.nan
    if (kind != INTEGER and kind != FRACTION) or data[a] == 45:
        return False, math.nan
    digits, size, point = np.int64(0), np.int64(0), b
    for k in range(a, b):
        if data[k] == 46:
            point = k + 1
        else:
            digits = digits * 10 + (np.int64(data[k]) - 48)
            size += np.int64(digits > 0)
            if size > 18:
                return False, math.nan
    if b - point > 22:
        return False, math.nan
    value = np.float64(digits) / _POWERS[b - point]
    return digits <= _EXACT or point == b or (not exact and _clear(value)), value


@merged_kernel
def _numbers(data, tokens, terms, out, r):  # type: ignore[no-untyped-def]
    """Position, price and quantity into column r, of the types that use them; False to hand the message over."""
    kind = out.numbers[0, r]
    position = _counted(data, tokens, _POSITION, 0, 2**31 - 1, -1)
    quantity = _counted(data, tokens, _QUANTITY, 1, _HUGE, 1)
    good, price = _real(data, tokens, _PRICE, True)
    if not good or position == -2 or quantity == -2:
        return False
    out.numbers[2, r] = position if terms.used[_POSITION, kind] else -1
    out.numbers[3, r] = quantity if terms.used[_QUANTITY, kind] else 1
    out.price[r] = price if terms.used[_PRICE, kind] else math.nan
    return True


@merged_kernel
def _features(data, tokens, terms, out, r):  # type: ignore[no-untyped-def]
    """Codes of the categorical features and values of the numeric ones into column r; False to hand it over."""
    for j in range(terms.seeds.shape[0]):
        which = _FIELDS + j
        kind, a, b = tokens.kind[which], tokens.begin[which], tokens.stop[which]
        if terms.numeric[j]:
            good, value = _real(data, tokens, which, False)
            if not good:
                return False
            out.values[j, r] = value
            continue
        if kind == FRACTION:
            return False
        code = np.uint64(0)
        if kind != ABSENT and kind != NULL and a < b:
            code = hash_span(data, a, b, terms.seeds[j]) & _LOW
            if code == np.uint64(0):
                code = np.uint64(1)  # as intake._low: 0 means absent
        out.codes[j, r] = np.uint32(code)
    return True


@merged_kernel
def _event(data, offset, tokens, terms, out, r):  # type: ignore[no-untyped-def]
    """Read the fields of one message into column r; False where the message is to be handed over."""
    kind = _type(data, tokens, terms)
    ts = _time(data, tokens, terms)
    if kind < 0 or ts < terms.low or ts > terms.high:
        return False
    out.numbers[0, r], out.numbers[1, r] = kind, ts
    return (
        _ids(data, offset, tokens, terms, out, r)
        and _numbers(data, tokens, terms, out, r)
        and _features(data, tokens, terms, out, r)
    )


@kernel
def read(data, ends, offsets, table, tokens, terms, out):  # type: ignore[no-untyped-def]
    """Read messages data[ends[i]:ends[i + 1]] at `offsets` into `out`, side by side; how many were in common form."""
    r = 0
    for i in range(offsets.shape[0]):
        if not _scan(data, ends[i], ends[i + 1], table, tokens):
            continue
        if not _event(data, offsets[i], tokens, terms, out, r):
            continue
        for which in range(table.size[0]):
            table.met[which] += tokens.kind[which] != ABSENT
        out.at[r] = i
        r += 1
    return r
