"""The report: complete in itself, whatever the summary says, and true to it."""

from __future__ import annotations

import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.reference import summaries
from thalweg.streams import markup, report, report_plots, report_sections
from thalweg.streams.summary import ReplaySummary


class Page(HTMLParser):
    """What of a page matters here: tags that are open at the end, addresses, ids, scripts by id."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.plots: list[str] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        for name in ("src", "href", "data", "action"):
            if given.get(name):
                self.addresses.append(str(given[name]))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if given.get("data-plot"):
            self.plots.append(str(given["data-plot"]))
        if tag == "script" and given.get("id"):
            self._script = str(given["id"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.fixture(scope="module")
def full() -> ReplaySummary:
    summary: ReplaySummary = summaries.full()
    return summary


@pytest.fixture(scope="module")
def page(full: ReplaySummary) -> Page:
    return Page(report.render(full))


def test_nothing_is_asked_of_anyone(page: Page, full: ReplaySummary) -> None:
    assert all(address.startswith("#") for address in page.addresses), page.addresses
    text = report.render(full)
    assert "Content-Security-Policy" in text and "default-src 'none'" in text
    assert "@import" not in text and "url(" not in report.asset("report.css")
    assert "sourceMappingURL" not in text


def test_it_is_one_file_of_about_a_megabyte(full: ReplaySummary, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    report.write_report(full, path)
    assert 500_000 < path.stat().st_size < 2_000_000
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_tags_are_closed_and_anchors_are_there(page: Page) -> None:
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    for address in page.addresses:
        assert address[1:] in page.ids


def test_every_plot_has_its_specification_and_every_specification_a_place(page: Page) -> None:
    specifications = set(page.scripts) - {"summary"}
    assert set(page.plots) == specifications and len(page.plots) == len(specifications) >= 7
    for name in specifications:
        plot = json.loads(page.scripts[name])
        assert plot["data"]["values"], f"{name} has no data"
        assert {"mark", "layer", "facet"} & set(plot), f"{name} draws nothing"


def test_the_summary_can_be_read_back(page: Page, full: ReplaySummary) -> None:
    assert json.loads(page.scripts["summary"]) == json.loads(json.dumps(full))


def test_every_plot_has_its_numbers_in_a_table(full: ReplaySummary) -> None:
    for section in (make(full) for make in report_sections.SECTIONS):
        if section.plots:
            assert "<table>" in section.html, section.title


def test_nothing_happened_is_a_report_too() -> None:
    page = Page(report.render(summaries.empty()))
    assert page.open == [] and page.plots == []


def test_hostile_names_stay_text(full: ReplaySummary) -> None:
    nasty = '</script><script>alert("x")</script><!-- {{script}} '
    summary: ReplaySummary = summaries.full()
    summary["run"]["logs"] = [nasty]
    summary["dead_letters"] = {nasty: 1}
    summary["tables"][0]["table"] = nasty
    text = report.render(summary)
    page = Page(text)
    assert text.count("<script") == Page(report.render(full)).ids.count("summary") + len(page.plots) + 2
    assert json.loads(page.scripts["summary"])["run"]["logs"] == [nasty]
    assert html.escape(nasty, quote=True).replace("&#x27;", "'") in text


@pytest.mark.parametrize(("low", "high", "word"), [
    (-0.002, -0.001, "Better:"), (0.001, 0.002, "Worse:"), (-0.001, 0.001, "Not decided:"),
    (None, None, "Not known yet:"),
])  # fmt: skip
def test_a_comparison_is_judged_by_its_interval(low: float | None, high: float | None, word: str) -> None:
    summary: ReplaySummary = summaries.full()
    summary["prequential"]["intervals"] = [
        {"name": "model minus base rate", "difference": 0.0, "low": low, "high": high, "weeks": 9}
    ]
    section = report_sections.conversion(summary)
    assert f"<b>{word}</b>" in section.html
    assert ("95 % interval" in section.html) == (low is not None)


def test_a_worse_method_is_not_called_better() -> None:
    summary: ReplaySummary = summaries.full()
    summary["related"]["total"][0]["hit_rate"] = 0.04
    text = report_sections.related(summary).html
    assert text.count("<b>Better:</b>") == 2 and text.count("<b>Not better:</b>") == 1


def test_books_that_do_not_balance_are_shown_first() -> None:
    summary: ReplaySummary = summaries.full()
    summary["books"].update(balanced=False, gaps=["click: read 3, but the rest is 2"])
    assert "Not balanced:" in report_sections.books(summary).html
    assert "NOT balanced" in report_sections.header(summary)


def test_numbers_that_are_not_known_are_dashes_and_valid_json() -> None:
    summary: ReplaySummary = summaries.full()
    summary["prequential"]["total"][0]["auc"] = None
    summary["prequential"]["weeks"][0]["ratio"] = None
    page = Page(report.render(summary))
    assert "NaN" not in page.scripts["summary"] and "Infinity" not in page.scripts["summary"]
    assert "–" in report_sections.conversion(summary).html
    drawn = report_plots.ratio_by_week(summary["prequential"]["weeks"])
    assert len(drawn["data"]["values"]) == len(summary["prequential"]["weeks"]) - 1


def test_weeks_of_calibration_weigh_epochs_by_predictions() -> None:
    """Two epochs of one week, 1 and 3 predictions: the mean is (1 * .1 + 3 * .2) / 4 = .175."""
    epochs = [
        {"ts": 0, "trials": 1, "positives": 0, "levels": 2, "raw": 0.1, "calibrated": 0.0},
        {"ts": 86_400_000, "trials": 3, "positives": 1, "levels": 2, "raw": 0.2, "calibrated": 0.0},
    ]
    values = report_plots.gain_by_epoch(epochs)["data"]["values"]  # type: ignore[arg-type]
    raw = next(value for value in values if value["name"] == "raw score")
    assert raw["log_loss"] == pytest.approx(0.175) and raw["trials"] == 4


def test_the_diagonal_spans_every_point(full: ReplaySummary) -> None:
    plot = report_plots.reliability(full["calibration"]["points"])
    top = plot["spec"]["layer"][0]["data"]["values"][1]["a"]
    assert top >= max(point["high"] for point in full["calibration"]["points"])


def test_vendored_files_are_what_the_list_says() -> None:
    folder = Path(report.__file__).parent / "vendor"
    listed = {}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        if not line.startswith("#"):
            digest, name = line.split()
            listed[name] = digest
    assert set(listed) == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    for name in report.LIBRARIES:
        licence = folder / f"LICENSE-{name.removesuffix('.min.js')}"
        assert re.search("Redistribution and use in source and binary forms", licence.read_text())


def test_libraries_come_in_the_order_of_their_needs(full: ReplaySummary) -> None:
    text = report.render(full)
    places = [text.index(report.vendored(name)[:200]) for name in report.LIBRARIES]
    assert places == sorted(places)


def test_a_report_is_replaced_only_when_it_is_whole(full: ReplaySummary, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    broken: ReplaySummary = summaries.full()
    del broken["audit"]  # type: ignore[misc]
    with pytest.raises(KeyError):
        report.write_report(broken, path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (-1234, "−1,234"), (0.1, "0.1"), (1e-7, "1e−07"), (True, "True"), ("<", "&lt;"), (float("nan"), "–"),
])  # fmt: skip
def test_values_are_shown_for_people(value: object, text: str) -> None:
    assert markup.show(value) == text


def test_tables_align_numbers_and_escape_text() -> None:
    text = markup.table(("name", "n"), [("<a>", 1), ("b", None)])
    assert '<th class="n">n</th>' in text and "&lt;a&gt;" in text and '<td class="n">–</td>' in text
    assert markup.table(("a",), []) == "" and markup.folded("more", "") == ""
    assert markup.size(1024) == "1.0 KB" and markup.size(5 * 2**40) == "5120.0 GB"
    assert markup.day(86_400_000) == "1970-01-02"
