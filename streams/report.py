"""The report of a replay: one HTML file with plots and tables, complete in itself, without a request to anywhere.

`render` takes a summary (`thalweg.streams.summary`) and nothing else; the summary lies in the file as JSON too, in the
element `summary`. Plots are Vega-Lite specifications (`report_plots`), drawn by the vendored libraries (vendor/, with
their licences and hashes). Every plot has its numbers in a table beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import msgspec

from thalweg import __version__

from .markup import escape, script_json
from .report_sections import SECTIONS, Section, header
from .summary import ReplaySummary

LIBRARIES = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
"""In the order in which they need each other."""


def write_report(summary: ReplaySummary, path: str | Path) -> None:
    """Write the report of `summary` to `path`; an older file there is replaced only when the new one is whole."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(render(summary), encoding="utf-8")
    part.replace(target)


def render(summary: ReplaySummary) -> str:
    """The report as HTML text."""
    sections = [section(summary) for section in SECTIONS]
    title = f"Thalweg: replay of {', '.join(summary['run']['logs']) or 'nothing'}"
    parts = {
        "version": __version__,
        "title": escape(title),
        "style": asset("report.css"),
        "body": _body(summary, sections),
        "summary": script_json(msgspec.json.encode(summary)),
        "specifications": "\n".join(
            f'<script type="application/json" id="{name}">{script_json(msgspec.json.encode(plot))}</script>'
            for section in sections
            for name, plot in section.plots.items()
        ),
        "libraries": "\n".join(_without_map(vendored(name)) for name in LIBRARIES),
        "script": asset("report.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset("report.html"))


def _body(summary: ReplaySummary, sections: Iterable[Section]) -> str:
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    whole = "\n".join(
        f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n{section.html}\n</section>'
        for section in sections
    )
    foot = f"Made by Thalweg {__version__}. Plots by Vega, Vega-Lite and Vega-Embed (BSD-3-Clause), inside this file."
    head = f"<header>\n{header(summary)}\n<nav>{links}</nav>\n</header>"
    return f"{head}\n<main>\n{whole}\n</main>\n<footer><p>{foot}</p></footer>"


def asset(name: str) -> str:
    """Text of one of the package's own files for the report.

    >>> asset("report.html").splitlines()[0]
    '<!doctype html>'
    """
    return files("thalweg.streams").joinpath("assets", name).read_text(encoding="utf-8")


def vendored(name: str) -> str:
    """Text of a vendored library.

    >>> len(vendored("vega-embed.min.js")) > 10_000
    True
    """
    return files("thalweg.streams").joinpath("vendor", name).read_text(encoding="utf-8")


def _without_map(script: str) -> str:
    """A library without the line that names its source map: the file would be asked for."""
    return "\n".join(line for line in script.splitlines() if not line.startswith("//# sourceMappingURL"))
