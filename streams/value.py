"""Reading one value strictly: an id, a number, a quantity, a category. Never a lenient cast.

The values are what a JSON decoder, a Parquet scalar or a CSV field gives: None, bool, int, float, Decimal, str, or a
container. Each reader returns the canonical value, None for "nothing there", or `BAD`. Numbers as text follow the
grammar of JSON numbers, in ASCII, with nothing around them: "1e3" is 1000; "6,795", "$5", "1_000", full-width digits
and "nan" are no numbers.
"""

from __future__ import annotations

import enum
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from .event import MAX_QUANTITY


class _Bad(enum.Enum):
    BAD = "bad"


BAD: Final = _Bad.BAD
"""The value cannot be read as what the field wants."""
Bad = Literal[_Bad.BAD]

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_EXACT = 2**53


def read_id(value: object) -> str | None | Bad:
    """Text stays what it is, a whole number becomes its digits; anything else is no id.

    >>> [read_id(v) for v in ("0108775015", 17850, 17850.0)]
    ['0108775015', '17850', '17850']
    >>> [read_id(v) is BAD for v in (17850.5, True, ["17850"], {"id": 17850}, 2.0**60)]
    [True, True, True, True, True]
    """
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return BAD
    if isinstance(value, int):
        return _digits(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else BAD
    if isinstance(value, Decimal):
        return _digits(int(value)) if value.is_finite() and value == int(value) else BAD
    return BAD


def _digits(value: int) -> str | Bad:
    try:
        return str(value)
    except ValueError:  # more than 4,300 digits
        return BAD


def read_number(value: object) -> float | None | Bad:
    """A finite number, or its text by JSON's grammar.

    >>> read_number("1299.00"), read_number("1e3"), read_number(5)
    (1299.0, 1000.0, 5.0)
    >>> [read_number(v) is BAD for v in ("6,795", "1_000", "nan", "", True, float("inf"), "１２")]
    [True, True, True, True, True, True, True]
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return BAD
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            return BAD
        value = float(value)
    if isinstance(value, int | Decimal):
        try:
            value = float(value)
        except OverflowError:
            return BAD
    if not isinstance(value, float):
        return BAD
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else BAD


def read_whole(value: object, low: int, high: int) -> int | None | Bad:
    """A whole number between `low` and `high`, or its text by JSON's grammar; 3.0 and "3.0" are 3.

    >>> read_whole("3", 1, 9), read_whole(3.0, 1, 9), read_whole(1.5, 1, 9) is BAD, read_whole(0, 1, 9) is BAD
    (3, 3, True, True)
    """
    number: object = value
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None or len(value) > 64:
            return BAD
        try:
            number = Decimal(value)
        except InvalidOperation:
            return BAD
    if number is None or isinstance(number, bool):
        return None if number is None else BAD
    if isinstance(number, float) and math.isnan(number):
        return None
    if not isinstance(number, int | float | Decimal) or not low <= number <= high:
        return BAD
    return int(number) if number == int(number) else BAD


def read_quantity(value: object) -> int | None | Bad:
    """Units: a whole number from 1 to `event.MAX_QUANTITY`.

    >>> [read_quantity(v) is BAD for v in (0, -1, 1.5, "", True, 10**12)]
    [True, True, True, True, True, True]
    """
    return read_whole(value, 1, MAX_QUANTITY)


def read_position(value: object) -> int | None | Bad:
    """Place in a list: a whole number from 0 that fits 32 bits.

    >>> read_position(0), read_position(-1) is BAD
    (0, True)
    """
    return read_whole(value, 0, 2**31 - 1)


def read_price(value: object) -> float | None | Bad:
    """Price of a unit: a finite number, not below 0.

    >>> read_price("175.0000"), read_price(-5) is BAD
    (175.0, True)
    """
    number = read_number(value)
    return BAD if isinstance(number, float) and number < 0 else number


def read_category(value: object) -> str | None | Bad:
    """Value of a categorical feature as text: "true", "false", digits of a whole number, shortest text of another.

    >>> [read_category(v) for v in ("mail", 3, 3.0, 0.5, True)]
    ['mail', '3', '3', '0.5', 'true']
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        number = read_number(value)
        if not isinstance(number, float):
            return number
        return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
    return read_id(value)
