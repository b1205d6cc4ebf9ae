"""Reading a time strictly: numbers by documented size bands, ISO 8601 text, naive text in the configured zone.

A number without a declared unit (`time.unit = "auto"`) is seconds, ms, us or ns by its size:

=====================  ============  ================================
absolute value below   read as       earliest and latest of 2000-2099
=====================  ============  ================================
1e11                   seconds       946684800 to 4102444799
1e14                   milliseconds  946684800000 to ...
1e17                   microseconds
anything above         nanoseconds
=====================  ============  ================================

The bands do not overlap inside the plausible years, and what they put elsewhere (0, 1, -1, 1e300) falls outside the
bounds, so no wrong unit gives a plausible time. Whatever is finer than a millisecond is cut off; a float is rounded
to the microsecond first, so 1774785600.123 is .123 and not .122.

Text is `YYYY-MM-DDTHH:MM:SS` (or a space for the T; the seconds may be missing), up to nine fraction digits, and `Z`,
an offset or nothing; nothing means the zone of `time.zone`. A local time that the zone skips is no time; one that
occurs twice is its first occurrence. A date alone is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from .configuration import ConfigurationError, Time

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

OUTSIDE = -(2**63)
"""Stands for "no readable time" in an int64 array of ms."""

SECONDS_BELOW, MILLISECONDS_BELOW, MICROSECONDS_BELOW = 10**11, 10**14, 10**17

_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?([Zz]|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def zone_of(time: Time) -> tzinfo:
    """The zone of naive times; ConfigurationError where `time.zone` is none.

    >>> zone_of(Time(zone="Europe/Berlin"))
    zoneinfo.ZoneInfo(key='Europe/Berlin')
    """
    if time.zone.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(time.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f'time.zone {time.zone!r} is no time zone; write one such as "Europe/Berlin" or "UTC"'
        ) from None


def from_integer(value: int, unit: str = "auto") -> int:
    """Milliseconds of a whole number; `OUTSIDE` where it leaves 64 bits.

    >>> [from_integer(v) for v in (1774785600, 1774785600000, 1774785600000000, 1774785600000000000)]
    [1774785600000, 1774785600000, 1774785600000, 1774785600000]
    """
    size = abs(value)
    if size >= 2**63:
        return OUTSIDE
    if unit == "s" or (unit == "auto" and size < SECONDS_BELOW):
        return value * 1000 if size < 2**53 else OUTSIDE
    if unit == "ms" or (unit == "auto" and size < MILLISECONDS_BELOW):
        return value
    if unit == "us" or (unit == "auto" and size < MICROSECONDS_BELOW):
        return value // 1000
    return value // 1_000_000


def from_float(value: float, unit: str = "auto") -> int:
    """Milliseconds of a float; `OUTSIDE` where it is not finite or leaves 64 bits.

    >>> from_float(1774785600.123), from_float(1e300) == OUTSIDE
    (1774785600123, True)
    """
    return int(from_floats(np.array([value], np.float64), unit)[0])


def from_integers(values: I64, unit: str = "auto") -> I64:
    """`from_integer` of each of int64 [n].

    >>> from_integers(np.array([1774785600, 1774785600000])).tolist()
    [1774785600000, 1774785600000]
    """
    size = np.abs(values)
    if unit == "auto":
        seconds, millis, micros = size < SECONDS_BELOW, size < MILLISECONDS_BELOW, size < MICROSECONDS_BELOW
        if not seconds.any() and millis.all():
            return values
        rest = np.where(millis, values, np.where(micros, values // 1000, values // 1_000_000))
        out = np.where(seconds, values * 1000, rest)
    elif unit == "s":
        out = np.where(size < 2**53, values * 1000, OUTSIDE)
    else:
        out = values // {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    out[values == np.iinfo(np.int64).min] = OUTSIDE
    return out


def from_floats(values: F64, unit: str = "auto") -> I64:
    """`from_float` of each of float64 [n]; NaN gives `OUTSIDE`.

    >>> from_floats(np.array([1774785600.5, 1774785600000.0])).tolist()
    [1774785600500, 1774785600000]
    """
    size = np.abs(values)
    factor = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
    with np.errstate(all="ignore"):
        if unit == "auto":
            ladder = np.where(size < MICROSECONDS_BELOW, values, values / 1e3)
            ladder = np.where(size < MILLISECONDS_BELOW, values * 1e3, ladder)
            micros = np.rint(np.where(size < SECONDS_BELOW, values * 1e6, ladder))
        else:
            micros = np.rint(values / 1e3 if unit == "ns" else values * factor[unit])
        readable = np.abs(micros) < 2.0**62
        whole = np.where(readable, micros, 0.0).astype(np.int64)
    return np.where(readable, whole // 1000, OUTSIDE)


def from_text(text: str, unit: str = "auto", zone: tzinfo = UTC) -> int:
    """Milliseconds of a text: a number by the rules above, or ISO 8601; `OUTSIDE` where it is neither.

    >>> from_text("2026-03-29T14:00:00+02:00"), from_text("1774785600"), from_text("yesterday") == OUTSIDE
    (1774785600000, 1774785600000, True)
    >>> from_text("2026-03-08 02:30:00", zone=ZoneInfo("America/New_York")) == OUTSIDE
    True
    """
    match = _ISO.fullmatch(text)
    if match is not None:
        return _from_iso(match, zone)
    number = _NUMBER.fullmatch(text)
    if number is None:
        return OUTSIDE
    if number[1] is None and number[2] is None:
        return from_integer(int(text), unit) if len(text) <= 20 else OUTSIDE
    return from_float(float(text), unit)


def _from_iso(match: re.Match[str], zone: tzinfo) -> int:
    date, minutes, seconds, fraction, offset = match.groups()
    if fraction is not None and seconds is None:
        return OUTSIDE
    millis = int((fraction or "0")[:3].ljust(3, "0"))
    try:
        moment = datetime.fromisoformat(f"{date}T{minutes}{seconds or ':00'}")
        if offset is None:
            return _local(moment, zone) + millis if zone is not UTC else _epoch(moment) + millis
        return _epoch(moment) - _offset(offset) + millis
    except (ValueError, OverflowError):
        return OUTSIDE


_EPOCH = datetime(1970, 1, 1)


def _epoch(naive: datetime) -> int:
    span = naive - _EPOCH
    return span.days * 86_400_000 + span.seconds * 1000


def _offset(text: str) -> int:
    if text in ("Z", "z"):
        return 0
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("no offset")
    span = (hours * 60 + minutes) * 60_000
    return -span if text[0] == "-" else span


def _local(naive: datetime, zone: tzinfo) -> int:
    instant = naive.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != naive:
        return OUTSIDE
    return _epoch(instant.replace(tzinfo=None))
