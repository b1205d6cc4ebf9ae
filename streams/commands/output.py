"""What commands print: data to stdout, all else to stderr; text tables that a person and `cut` can read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter

FAILED, WRONG = 1, 2
"""Exit statuses: it failed; the command line or the configuration is wrong."""
Flag = Annotated[bool, Parameter(show_default=False)]
"""A switch that is off unless given."""
Json = Annotated[bool, Parameter(name="--json", show_default=False)]
"""The switch of commands that report."""


def say(text: str) -> None:
    """A message for the person, on stderr: `thalweg: TEXT`."""
    sys.stderr.write(f"thalweg: {text}\n")
    sys.stderr.flush()


def explain(error: Exception) -> int:
    """Say one message for an error; the exit status that it means."""
    if isinstance(error, CycloptsError):
        command = " ".join(["thalweg", *(error.command_chain or ())])
        say(f"{str(error).strip()}\n`{command} --help` shows what it takes")
        return WRONG
    if any(kind.__name__ == "ConfigurationError" for kind in type(error).__mro__):  # --help pays for no import of it
        say(f"{error}")
        return WRONG
    if isinstance(error, OSError):
        say(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return FAILED
    if type(error).__module__.startswith("thalweg."):
        say(f"{error}")
        return FAILED
    where = "set THALWEG_DEBUG=1 and run it again to see where, and please report it"
    say(f"an error inside thalweg, {type(error).__name__}: {error}; {where}")
    return FAILED


def write(text: str = "") -> None:
    """A line of data, on stdout."""
    sys.stdout.write(f"{text}\n")


def write_json(value: Any) -> None:
    """`value` as JSON on stdout, two spaces deep; floats that are no number become null."""
    write(to_json(value).decode())


def to_json(value: Any) -> bytes:
    """`value` (dicts, lists, dataclasses, structs, numpy scalars) as indented JSON; NaN and infinity become null.

    >>> to_json({"rate": float("nan"), "n": 1})
    b'{\\n  "rate": null,\\n  "n": 1\\n}'
    """
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain))


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as Python's own, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A text table: columns padded, numbers to the right, two spaces between.

    >>> print(table(("item", "score"), [("phone", 0.5), ("case", 12)]))
    item   score
    phone  0.5000
    case       12
    """
    body = [[cell(value) for value in row] for row in rows]
    raw = [list(head), *body]
    widths = [max(len(row[column]) for row in raw) for column in range(len(head))]
    right = [bool(body) and all(_numeric(row[column]) for row in body) for column in range(len(head))]
    lines = []
    for row in raw:
        padded = [text.rjust(w) if to_right else text.ljust(w) for text, w, to_right in zip(row, widths, right)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A value as text: thousands in integers, four digits in floats, nothing for None.

    >>> cell(1234567), cell(0.25), cell(None), cell(float("nan"))
    ('1,234,567', '0.2500', '', '')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _numeric(text: str) -> bool:
    return not text or text.replace(",", "").replace(".", "").lstrip("-").isdigit()
