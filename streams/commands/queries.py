"""Commands that ask a state: related, recommend, explain. They open it read-only, beside a writer if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .output import Json, cell, say, table, write, write_json
from .state import instant

if TYPE_CHECKING:
    from ..item_names import ItemNames
    from ..recommendation import Answer, Reason

State = Annotated[Path, Parameter(name="--state")]
Number = Annotated[int, Parameter(name=("-k", "--number"))]


def related(item: str, /, *, state: State, k: Number = 10, json: Json = False) -> None:
    """List what is bought after an item: directed, so a phone gives a case and a case no phone.

    Parameters
    ----------
    item
        Its id, or its name where the state has names; of several items of a name the most popular.
    state
        The state directory.
    k
        How many, at most.
    json
        Report as JSON.
    """
    from ..view import View

    with View(state) as view:
        asked = view.find(item)
        found = view.related(item, k)
        if json:
            write_json({"item": asked, "name": view.names.name(asked), "related": found})
            return
        say(f"bought after {view.names.show(asked)}:")
        write(related_table(found, view.names))


def related_table(found: list[dict[str, Any]], names: ItemNames) -> str:
    """What `View.related` found, as text; customers this way and the other way round.

    >>> from ..item_names import ItemNames
    >>> found = {"item": "18", "relatedness": 0.5, "similarity": 0.4, "evidence": 0.3, "customers": 9.0, "reverse": 1.0}
    >>> print(related_table([found], ItemNames({"18": "case"})))
    item       relatedness  similarity       z  customers  reverse
    case [18]       0.5000      0.4000  0.3000     9.0000   1.0000
    """
    head = ("item", "relatedness", "similarity", "z", "customers", "reverse")
    rows = [
        (names.show(f["item"]), f["relatedness"], f["similarity"], f["evidence"], f["customers"], f["reverse"])
        for f in found
    ]
    return table(head, rows)


def recommend(
    *,
    state: State,
    user: str | None = None,
    items: str | None = None,
    context: list[str] | None = None,
    k: Number = 10,
    json: Json = False,
) -> None:
    """Recommend items, each with its reason: to a user of the log, or to somebody who just bought some items.

    Parameters
    ----------
    state
        The state directory.
    user
        Id of the user.
    items
        Items just bought, A,B, newest first; with or without a user.
    context
        A declared feature of the request, NAME=VALUE, as often as needed.
    k
        How many, at most.
    json
        Report as JSON.
    """
    from ..configuration import ConfigurationError
    from ..view import View

    if user is None and items is None:
        raise ConfigurationError("recommend: say for whom, --user USER, or after what, --items A,B")
    bought = [item.strip() for item in (items or "").split(",") if item.strip()]
    with View(state) as view:
        answer = view.recommend(user, bought, pairs(context), k)
        if json:
            write_json(answer.to_dict())
            return
        for line in standing(answer):
            say(line)
        write(recommended_table(answer, view.names))


def pairs(context: list[str] | None) -> dict[str, str]:
    """NAME=VALUE words as a mapping.

    >>> pairs(["channel=mailer"])
    {'channel': 'mailer'}
    """
    from ..configuration import ConfigurationError

    found = {}
    for text in context or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--context {text}: write it NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def standing(answer: Answer) -> list[str]:
    """What an answer stands on: request, clock, embedding version, reading, and what its reader should know."""
    version = "none yet" if answer.version is None else f"{answer.version} of {_day(answer.version_ts)}"
    reading = "none yet" if answer.reading is None else f"of epoch {answer.reading}"
    clock = instant(min(answer.clocks.values(), default=-(2**63)))
    first = f"request {answer.request_id}, state of {clock}, embeddings {version}, reading {reading}"
    return [first, *([answer.note] if answer.note else [])]


def recommended_table(answer: Answer, names: ItemNames) -> str:
    """A ranked answer as text: the rate with its interval, score, level and threshold, and the reason."""
    head = ("", "item", "rate", "90 % interval", "score", "level", "threshold", "reason")
    rows = [
        (
            rank, names.show(one.item), one.rate, f"{one.low:.4f} to {one.high:.4f}", one.score, one.level,
            one.threshold, reason_text(one.reason, names),
        )
        for rank, one in enumerate(answer.items, 1)
    ]  # fmt: skip
    return table(head, rows)


def reason_text(reason: Reason, names: ItemNames) -> str:
    """Why an item is offered, as a person says it.

    >>> from ..item_names import ItemNames
    >>> from ..recommendation import Reason
    >>> reason_text(Reason("personal", "17", 0, 0.5, 0.3, 12.2), ItemNames({"17": "phone"}))
    'bought phone [17] on 1970-01-01, as 12 others did'
    """
    if reason.because is None:
        return "popular"
    when = "" if reason.bought is None else f" on {_day(reason.bought)}"
    if reason.rung == "category":
        return f"popular beside {names.show(reason.because)}, bought{when}"
    others = f", as {reason.customers:.0f} others did" if reason.customers >= 1.5 else ""
    return f"bought {names.show(reason.because)}{when}{others}"


def explain(
    *,
    state: State,
    user: str | None = None,
    item: str | None = None,
    impression: str | None = None,
    context: list[str] | None = None,
    json: Json = False,
) -> None:
    """Explain the score of an item for a user, or tell the life of a label.

    Parameters
    ----------
    state
        The state directory.
    user
        Id of the user.
    item
        Id of the item, or its name where the state has names.
    impression
        Id of an impression: what is known of its label, instead of a score.
    context
        A declared feature of the request, NAME=VALUE, as often as needed.
    json
        Report as JSON.
    """
    from ..configuration import ConfigurationError
    from ..view import View

    if impression is None and item is None:
        raise ConfigurationError("explain: name --item ITEM (and --user USER), or --impression ID")
    with View(state) as view:
        if impression is not None:
            found = view.explain_label(impression, user)
        else:
            found = view.explain(user, item or "", pairs(context))
        if json:
            write_json(found)
        elif impression is not None:
            write(label_text(found))
        else:
            write(explanation_text(found, view.names))


def label_text(found: Mapping[str, Any]) -> str:
    """The life of a label, a fact a line.

    >>> print(label_text({"impression": "v1", "ts": 0, "label": {"stage": 1}}))
    impression  v1
    ts          0
    stage       1
    """
    label = found.get("label") or {}
    facts = {**{name: value for name, value in found.items() if name != "label"}, **label}
    for name in ("ts", "expired"):
        if isinstance(facts.get(name), int) and facts[name] > 1:
            facts[name] = instant(facts[name])
    return table(("impression", found["impression"]), [(n, _plain(v)) for n, v in facts.items() if n != "impression"])


def explanation_text(found: Mapping[str, Any], names: ItemNames) -> str:
    """A score with its parts, what it means, and the purchases that lead to the item."""
    said = found["calibrated"]
    threshold = (
        "no threshold" if abs(said["threshold"]) == float("inf") else f"threshold {_rate(said['threshold']):.4f}"
    )
    lines = [
        f"{names.show(found['item'])} for {found['user'] or 'a guest'}",
        f"score {found['score']:.4f} (logit {found['logit']:+.3f}), uncertainty {found['uncertainty']:.3f}: "
        f"level {said['level']}",
        f"calibrated rate {said['rate']:.4f}, 90 % interval {said['low']:.4f} to {said['high']:.4f}; {threshold} of "
        f"this level: {'kept' if said['kept'] else 'not kept'}",
        "",
        table(("feature", "part of the logit"), [(p["feature"], f"{p['logit']:+.3f}") for p in found["parts"]]),
    ]
    if found["because"]:
        rows = [
            (names.show(b["because"]), _day(b["bought"]), b["relatedness"], b["customers"]) for b in found["because"]
        ]
        lines += ["", table(("after", "bought", "relatedness", "customers"), rows)]
    return "\n".join(lines)


def _rate(logit: float) -> float:
    import math

    return 1.0 / (1.0 + math.exp(-logit))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else cell(value)


def _day(ms: int | None) -> str:
    return "" if ms is None else (instant(ms) or "")[:10]
