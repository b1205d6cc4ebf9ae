"""The sections of the report, in order: each takes the summary and gives its text, tables and plots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import report_plots as plots
from .markup import day, escape, figure, folded, size, table, tiles, verdict
from .summary import PairedInterval, Ranked, ReplaySummary


@dataclass(frozen=True)
class Section:
    """One section: its anchor, heading, HTML, and plots by the names that the HTML refers to."""

    anchor: str
    title: str
    html: str
    plots: dict[str, plots.Specification] = field(default_factory=dict)


def header(summary: ReplaySummary) -> str:
    """Title, what was replayed, and the figures to see first."""
    run = summary["run"]
    logs = ", ".join(run["logs"]) or "nothing"
    span = (
        f", {day(run['first'])} to {day(run['clock'])}" if run["first"] is not None else f", up to {day(run['clock'])}"
    )
    figures = [
        (f"{run['events']:,}", "events in this run"),
        (f"{run['rate']:,.0f}/s", f"events, in {run['seconds']:,.1f} s"),
        (size(run["memory"]), "memory at its peak"),
        (f"{sum(summary['dead_letters'].values()):,}", "dead letters"),
        (f"{run['late']:,}", "late rows, applied"),
        ("balanced" if summary["books"]["balanced"] else "NOT balanced", "the books"),
    ]
    notes = []
    if run["interrupted"]:
        notes.append("This replay was interrupted; the same command goes on from its checkpoint.")
    if not run["closed"]:
        notes.append("Rows within the allowed lateness of the end are still held; --close lets them through.")
    text = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<h1>Replay of {escape(logs)}</h1>\n<p class="soft">Event time{span}.</p>\n{tiles(figures)}{text}'


def conversion(summary: ReplaySummary) -> Section:
    """The conversion model beside its baselines."""
    scores = summary["prequential"]
    text = "<p>Each impression is scored when it is seen; the score is judged when its label has matured.</p>"
    text += "".join(_paired(interval, "log-loss") for interval in scores["intervals"])
    head = ("predictor", "scored", "converted", "log-loss", "AUC", "PR-AUC", "predicted / actual", "calibration error")
    rows = [
        (t["name"], t["trials"], t["positives"], t["log_loss"], t["auc"], t["pr_auc"], t["ratio"], t["error"])
        for t in scores["total"]
    ]
    text += table(head, rows) or "<p>No label has matured yet.</p>"
    drawn = {}
    if scores["weeks"]:
        drawn = {"loss": plots.log_loss_by_week(scores["weeks"]), "ratio": plots.ratio_by_week(scores["weeks"])}
        text += figure("loss", "Log-loss by week of the impression; lower is better.")
        text += figure("ratio", "Predicted over actual conversions by week; the dashed line is where both are equal.")
        weekly = [
            (day(w["ts"]), w["name"], w["trials"], w["positives"], w["log_loss"], w["ratio"]) for w in scores["weeks"]
        ]
        weekly_head = ("week from", "predictor", "scored", "converted", "log-loss", "predicted / actual")
        text += folded("These numbers as a table", table(weekly_head, weekly))
    return Section("conversion", "Conversion model", text, drawn)


def _paired(interval: PairedInterval, what: str, unit: str = "weeks") -> str:
    """Whether the first of a pair wins, in words, with the interval; lower is better."""
    low, high, name = interval["low"], interval["high"], interval["name"]
    if interval["difference"] is None or low is None or high is None:
        return verdict("Not known yet:", f"{name}: too few {unit} for an interval.", None)
    span = f"95 % interval {low:+.3g} to {high:+.3g}, paired over {interval['weeks']} {unit}"
    numbers = f"{interval['difference']:+.3g} in {what}, {span}"
    better, worse = high < 0, low > 0
    word = "Better:" if better else "Worse:" if worse else "Not decided:"
    return verdict(word, f"{name}: {numbers}.", True if better else False if worse else None)


def related(summary: ReplaySummary) -> Section:
    """What `related` finds, beside its baselines."""
    found = summary["related"]
    text = (
        "<p>Of the pairs bought one after the other in the period after a version was made, how often is the second "
        "item among the ten that are related to the first?</p>"
    )
    text += _beaten(found["total"])
    head = ("method", "pairs", "HR@10", "MRR@10")
    rows = [(r["name"], r["pairs"], r["hit_rate"], r["reciprocal_rank"]) for r in found["total"]]
    text += table(head, rows) or "<p>No version has a period after it yet.</p>"
    drawn = {}
    if found["refreshes"]:
        drawn = {"hits": plots.hits_by_refresh(found["refreshes"])}
        text += figure("hits", "HR@10 by version of the embeddings, at the time it was made; higher is better.")
        by_version = [
            (day(r["ts"]), r["name"], r["pairs"], r["hit_rate"], r["reciprocal_rank"]) for r in found["refreshes"]
        ]
        text += folded("These numbers as a table", table(("version of", *head), by_version))
    return Section("related", "Related items", text, drawn)


def _beaten(total: list[Ranked]) -> str:
    """The first method against each other one: the order in which the stage names them, its own first."""
    if len(total) < 2:
        return ""
    own, lines = total[0], []
    for other in total[1:]:
        better = own["hit_rate"] > other["hit_rate"]
        numbers = f"HR@10 {own['hit_rate']:.4f} against {other['hit_rate']:.4f}, {own['pairs']:,} pairs"
        lines.append(
            verdict("Better:" if better else "Not better:", f"{own['name']} than {other['name']}: {numbers}.", better)
        )
    return "".join(lines)


def calibration(summary: ReplaySummary) -> Section:
    """What a score meant, by how unsure the model was."""
    found = summary["calibration"]
    total = found["total"]
    text = (
        "<p>A reading is frozen at the start of each epoch, from epochs whose labels are all known by then. Each level "
        "of uncertainty has its own rate for a score, and its own threshold.</p>"
    )
    interval = PairedInterval(
        name="calibrated minus raw", difference=total["difference"], low=total["low"], high=total["high"],
        weeks=int(total.get("weeks") or 0),
    )  # fmt: skip
    if found["epochs"]:
        text += _paired(interval, "log-loss", "spans of seven epochs")
    counts = [
        ("readings", found["readings"]),
        ("epochs scored", len(found["epochs"])),
        ("levels now", len(found["levels"])),
    ]
    counts += [("epochs with two levels or more", int(total.get("epochs_with_levels") or 0))]
    text += table(("", "count"), counts)
    text += table(("", "raw", "calibrated"), [
        ("log-loss", total["raw"], total["calibrated"]),
        ("calibration error", total.get("raw_error"), total.get("calibrated_error")),
    ])  # fmt: skip
    text += table(
        ("level now", "uncertainty bins", "threshold"),
        [(v["level"], v["bins"], v["threshold"]) for v in found["levels"]],
    )
    drawn = {}
    if found["points"]:
        drawn["reliability"] = plots.reliability(found["points"])
        text += figure(
            "reliability", "Rate given out against rate that came, with its 90 % interval; level 0 is the surest."
        )
        rows = [
            (p["level"], p["trials"], p["raw"], p["predicted"], p["actual"], p["low"], p["high"])
            for p in found["points"]
        ]
        head = ("level", "predictions", "raw score", "calibrated", "came", "90 % from", "to")
        text += folded("These numbers as a table", table(head, rows))
    if found["epochs"]:
        drawn["gain"] = plots.gain_by_epoch(found["epochs"])
        text += figure("gain", "Log-loss of the raw score and of the calibrated rate by week; lower is better.")
        epochs = [
            (day(e["ts"]), e["trials"], e["positives"], e["levels"], e["raw"], e["calibrated"]) for e in found["epochs"]
        ]
        text += folded(
            "Epoch by epoch", table(("epoch", "predictions", "converted", "levels", "raw", "calibrated"), epochs)
        )
    if found["thresholds"]:
        drawn["thresholds"] = plots.thresholds(found["thresholds"])
        text += figure("thresholds", "Threshold of each level of uncertainty over time, as a raw probability.")
    return Section("calibration", "Calibration", text, drawn)


def graph(summary: ReplaySummary) -> Section:
    """The co-purchase graph and the versions of its embeddings."""
    found = summary["graph"]
    text = f"<p>{found['items']:,} items, {found['edges']:,} directed edges now.</p>"
    head = ("version", "made at", "items", "pairs", "one-way", "SVD HR@10", "propagation HR@10", "serves", "inputs")
    rows = [
        (v["version"], day(v["ts"]), v["items"], v["pairs"], v["one_way"], v["svd"], v["propagation"], v["method"],
         v["inputs"][:12])
        for v in found["versions"]
    ]  # fmt: skip
    text += table(head, rows)
    if found["versions"]:
        text += (
            '<p class="note">One-way: share of the tested pairs with a significant direction. HR@10 of both methods on '
            "pairs of the last period that were held back when the propagation was learnt; the better one serves.</p>"
        )
        reasons = [(v["version"], v["reason"]) for v in found["versions"]]
        text += folded("Why which one serves", table(("version", "reason"), reasons))
    return Section("graph", "Co-purchase graph", text)


def books(summary: ReplaySummary) -> Section:
    """The books, and what became of every row."""
    found = summary["books"]
    text = "<p>Read = applied + held + duplicate + set aside + dead-lettered, each counted at its own place.</p>"
    if found["balanced"]:
        text += verdict("Balanced.", "Every row that was read is accounted for.", True)
    text += "".join(verdict("Not balanced:", f"{gap}.", False) for gap in found["gaps"])
    terms = list(dict.fromkeys(term for each in found["events"].values() for term in each))
    used = [term for term in terms if any(each.get(term) for each in found["events"].values())]
    rows = [
        (kind, *(each.get(term, 0) for term in used)) for kind, each in found["events"].items() if any(each.values())
    ]
    text += table(("events", *(term.replace("_", " ") for term in used)), rows)
    text += table(("labels", "count"), [(term.replace("_", " "), count) for term, count in found["labels"].items()])
    text += "<h3>Dead letters by reason</h3>"
    reasons = sorted(summary["dead_letters"].items(), key=lambda entry: -entry[1])
    text += table(("reason", "rows"), reasons) or "<p>None.</p>"
    if summary["dropped"]:
        text += "<h3>What the bounds of tables dropped</h3>" + table(("table", "count"), summary["dropped"].items())
    return Section("books", "The books", text)


def state(summary: ReplaySummary) -> Section:
    """Size of the state, and its digests."""
    tables = summary["tables"]
    text = f"<p>{size(sum(each['bytes'] for each in tables))} in memory, in {len(tables)} tables.</p>"
    drawn = {}
    if tables:
        drawn = {"sizes": plots.sizes(tables)}
        text += figure("sizes", "The largest tables.")
        text += folded("All tables", table(("stage", "table", "bytes"), [tuple(each.values()) for each in tables]))
    return Section("state", "State", text, drawn)


def audit(summary: ReplaySummary) -> Section:
    """Digests and the end of the audit trail: what `thalweg verify` compares."""
    run = summary["run"]
    text = (
        "<p>A digest covers every logical entry of a stage; a run of the same events ends with the same digests, "
        "whatever its blocks, shards and interruptions were. <code>thalweg verify</code> compares two states.</p>"
    )
    text += table(
        ("stage", "digest", "trail entries"), [(a["stage"], a["digest"], a["entries"]) for a in summary["audit"]]
    )
    ends = [(a["stage"], day(ts), digest) for a in summary["audit"] for ts, digest in a["last"]]
    text += folded("The end of the trail", table(("stage", "day", "digest"), ends))
    facts = [
        ("state", run["state"]), ("configuration", run["fingerprint"]), ("label policy", run["policy"]),
        ("partitions", run["partitions"]), ("checkpoints", run["checkpoints"]),
        ("written", size(run["checkpoint_bytes"])),
    ]  # fmt: skip
    text += table(("run", ""), [(name, str(value)) for name, value in facts])
    return Section("audit", "Audit trail", text)


SECTIONS: tuple[Callable[[ReplaySummary], Section], ...] = (
    conversion, related, calibration, graph, books, state, audit,
)  # fmt: skip
"""In the order of the page."""
