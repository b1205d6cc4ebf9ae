"""The plots of the report as Vega-Lite specifications: plain data in, plain data out; colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .summary import EpochScores, Point, RankedAt, Table, Threshold, Week

Specification = dict[str, Any]
"""A Vega-Lite specification."""
WEEK = 604_800_000


def _plot(values: Sequence[Any], **rest: Any) -> Specification:
    size = {} if "facet" in rest else {"width": "container", "height": 240}
    return {"data": {"values": list(values)}, "autosize": {"type": "fit-x", "contains": "padding"}, **size, **rest}


def _time(field: str = "ts") -> Specification:
    axis = {"tickCount": 9, "labelOverlap": True, "labelSeparation": 10}
    return {"field": field, "type": "temporal", "title": None, "scale": {"type": "utc"}, "axis": axis}


def _score(field: str, title: str, zero: bool = False) -> Specification:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": zero}}


def _by(field: str, values: Sequence[str]) -> Specification:
    order = list(dict.fromkeys(values))
    return {"field": field, "type": "nominal", "scale": {"domain": order}, "sort": order}


def _tooltip(*fields: tuple[str, str, str]) -> list[Specification]:
    kinds: dict[str, Specification] = {
        "day": {"type": "temporal", "format": "%Y-%m-%d"},
        "count": {"type": "quantitative", "format": ",d"},
        "score": {"type": "quantitative", "format": ".4~f"},
        "text": {"type": "nominal"},
    }
    return [{"field": field, "title": title, **kinds[kind]} for field, title, kind in fields]


def lines(
    values: Sequence[Any], score: str, title: str, extra: tuple[str, str, str] = ("trials", "scored", "count")
) -> Specification:
    """One line a name over time, with points that tell their numbers.

    >>> lines([{"ts": 0, "name": "model", "trials": 9, "log_loss": 0.1}], "log_loss", "log-loss")["height"]
    240
    """
    encoding = {
        "x": _time(),
        "y": _score(score, title),
        "color": _by("name", [value["name"] for value in values]),
        "tooltip": _tooltip(("name", "", "text"), ("ts", "from", "day"), (score, title, "score"), extra),
    }
    return _plot(values, mark={"type": "line", "point": len(values) < 400}, encoding=encoding)


def log_loss_by_week(weeks: Sequence[Week]) -> Specification:
    """Log-loss of the model and its baselines by week of the impression.

    >>> log_loss_by_week([])["encoding"]["y"]["field"]
    'log_loss'
    """
    return lines(weeks, "log_loss", "log-loss, nats")


def ratio_by_week(weeks: Sequence[Week]) -> Specification:
    """Predicted over actual conversions by week, and the line at 1 where both are equal.

    >>> [layer["mark"]["type"] for layer in ratio_by_week([])["layer"]]
    ['rule', 'line']
    """
    known = [week for week in weeks if week["ratio"] is not None]
    plot = lines(known, "ratio", "predicted / actual")
    line = {"mark": plot.pop("mark"), "encoding": plot.pop("encoding")}
    rule = {
        "data": {"values": [{"one": 1}]},
        "mark": {"type": "rule", "strokeDash": [4, 4]},
        "encoding": {"y": {"datum": 1}},
    }
    return {**plot, "layer": [rule, line]}


def hits_by_refresh(refreshes: Sequence[RankedAt]) -> Specification:
    """HitRate@10 of `related` and its baselines, by version of the embeddings.

    >>> hits_by_refresh([])["encoding"]["y"]["field"]
    'hit_rate'
    """
    return lines(refreshes, "hit_rate", "HR@10", ("pairs", "pairs", "count"))


def reliability(points: Sequence[Point]) -> Specification:
    """Calibrated rate given out against the rate that came, a panel a level; the diagonal is where both agree.

    >>> reliability([])["facet"]["field"]
    'panel'
    """
    top = max((max(point["high"], point["predicted"]) for point in points), default=1.0) * 1.05
    scale = {"type": "sqrt", "domain": [0, top], "nice": False}
    x = {"field": "predicted", "type": "quantitative", "title": "calibrated rate given out", "scale": scale}
    rate = {"type": "quantitative", "title": "rate that came", "scale": scale}
    color = {"field": "level", "type": "nominal", "legend": None}
    told = _tooltip(
        ("predicted", "calibrated", "score"), ("raw", "raw score", "score"), ("actual", "came", "score"),
        ("low", "90 % from", "score"), ("high", "to", "score"), ("trials", "predictions", "count"),
    )  # fmt: skip
    diagonal = {
        "data": {"values": [{"a": 0, "b": 0}, {"a": top, "b": top}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1, "color": "gray"},
        "encoding": {"x": {"field": "a", "type": "quantitative"}, "y": {"field": "b", "type": "quantitative"}},
    }
    span = {
        "mark": {"type": "rule", "opacity": 0.6},
        "encoding": {"x": x, "y": {"field": "low", **rate}, "y2": {"field": "high"}, "color": color},
    }
    dots = {
        "mark": {"type": "point"},
        "encoding": {"x": x, "y": {"field": "actual", **rate}, "color": color, "tooltip": told},
    }
    named = [
        {**point, "panel": f"level {point['level']}" + (", surest" if point["level"] == 0 else "")} for point in points
    ]
    return {
        "data": {"values": named},
        "facet": {"field": "panel", "type": "nominal", "title": None},
        "columns": 4,
        "spec": {"width": 190, "height": 190, "layer": [diagonal, span, dots]},
    }


def gain_by_epoch(epochs: Sequence[EpochScores]) -> Specification:
    """Log-loss of the raw score and of the calibrated rate, by week of the impression (weighed by predictions).

    >>> gain_by_epoch([])["data"]
    {'values': []}
    """
    weeks: dict[tuple[int, str], list[float]] = {}
    for epoch in epochs:
        for name, loss in (("raw score", epoch["raw"]), ("calibrated rate", epoch["calibrated"])):
            sums = weeks.setdefault((epoch["ts"] // WEEK * WEEK, name), [0.0, 0.0])
            sums[0] += loss * epoch["trials"]
            sums[1] += epoch["trials"]
    values = [
        {"ts": ts, "name": name, "log_loss": loss / trials, "trials": int(trials)}
        for (ts, name), (loss, trials) in sorted(weeks.items())
        if trials
    ]
    return lines(values, "log_loss", "log-loss, nats")


def thresholds(values: Sequence[Threshold]) -> Specification:
    """The threshold of each level in each reading, as a raw probability.

    >>> thresholds([{"ts": 0, "level": 1, "threshold": 0.2}])["data"]["values"][0]["name"]
    'level 1'
    """
    named = [{**value, "name": f"level {value['level']}"} for value in values]
    encoding = {
        "x": _time(),
        "y": _score("threshold", "threshold, raw probability"),
        "color": _by("name", sorted({str(value["name"]) for value in named})),
        "tooltip": _tooltip(("name", "", "text"), ("ts", "reading of", "day"), ("threshold", "threshold", "score")),
    }
    return _plot(named, mark={"type": "line", "interpolate": "step-after"}, encoding=encoding)


def sizes(tables: Sequence[Table], most: int = 16) -> Specification:
    """Bytes of the largest tables, coloured by stage.

    >>> sizes([{"stage": "feedback", "table": "weights", "bytes": 2**20}])["data"]["values"][0]["megabytes"]
    1.0
    """
    largest = sorted(tables, key=lambda each: -each["bytes"])[:most]
    named = [
        {**each, "megabytes": each["bytes"] / 2**20, "where": f"{each['stage']}: {each['table']}"} for each in largest
    ]
    encoding = {
        "y": {"field": "where", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}},
        "x": _score("megabytes", "MB", zero=True) | {"axis": {"tickCount": 8}},
        "color": _by("stage", sorted({str(each["stage"]) for each in named})) | {"legend": {"symbolType": "square"}},
        "tooltip": _tooltip(("where", "", "text"), ("bytes", "bytes", "count")),
    }
    return _plot(named, mark={"type": "bar"}, encoding=encoding) | {"height": {"step": 20}}
