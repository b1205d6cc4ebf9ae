"""Small pieces of HTML for the report: escaped text, tables, tiles, verdicts, figures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any


def escape(text: str) -> str:
    """Text as HTML.

    >>> escape('<b> & "c"')
    '&lt;b&gt; &amp; &quot;c&quot;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def script_json(raw: bytes) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or begin a comment.

    >>> script_json(b'"</script>"')
    '"\\\\u003c/script>"'
    """
    return raw.decode().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def show(value: Any) -> str:
    """A value as HTML text: thousands in integers, significant digits in floats, a dash where there is none.

    >>> show(1234567), show(0.0123456), show(None), show("a<b"), show(1.5e7)
    ('1,234,567', '0.01235', '–', 'a&lt;b', '15,000,000')
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; columns of numbers are set to the right. Nothing where there is no row.

    >>> table(("a",), [])
    ''
    >>> '<td class="n">1</td>' in table(("item", "n"), [("phone", 1)])
    True
    """
    body = [list(row) for row in rows]
    if not body:
        return ""
    numeric = [all(isinstance(row[k], int | float | None) for row in body) for k in range(len(head))]
    marks = [' class="n"' if each else "" for each in numeric]
    heads = "".join(f"<th{mark}>{escape(name)}</th>" for mark, name in zip(marks, head, strict=True))
    lines = (
        "<tr>" + "".join(f"<td{mark}>{show(value)}</td>" for mark, value in zip(marks, row, strict=True)) + "</tr>"
        for row in body
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def folded(title: str, html: str) -> str:
    """Something long that opens on a click; nothing stays nothing.

    >>> folded("all", "")
    ''
    """
    return f"<details><summary>{escape(title)}</summary>{html}</details>" if html else ""


def tiles(entries: Iterable[tuple[str, str]]) -> str:
    """Key figures: (figure, what it is).

    >>> tiles([("3", "refreshes")])
    '<div class="tiles"><div class="tile"><b>3</b><span>refreshes</span></div></div>'
    """
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in entries
    )
    return f'<div class="tiles">{inner}</div>'


def verdict(word: str, text: str, good: bool | None) -> str:
    """One finding with its word in front, marked as good, bad or neither.

    >>> verdict("Yes.", "It holds.", True)
    '<p class="verdict good"><b>Yes.</b> It holds.</p>'
    """
    mark = {True: " good", False: " bad", None: ""}[good]
    return f'<p class="verdict{mark}"><b>{escape(word)}</b> {escape(text)}</p>'


def figure(plot: str, caption: str) -> str:
    """The place of the plot called `plot`, with a caption.

    >>> 'data-plot="p"' in figure("p", "what one sees")
    True
    """
    return (
        f'<figure><div class="plot chart" data-plot="{plot}"></div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def day(ms: int | None) -> str:
    """A time as a date, UTC.

    >>> day(0), day(None)
    ('1970-01-01', '–')
    """
    return "–" if ms is None else time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))


def size(count: float) -> str:
    """A number of bytes for people.

    >>> size(512), size(20_000_000)
    ('512 B', '19.1 MB')
    """
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
