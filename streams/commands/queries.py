"""Commands that ask a state: related, recommend, explain. They open it read-only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .output import Json, table, write, write_json

State = Annotated[Path, Parameter(name="--state")]
Number = Annotated[int, Parameter(name=("-k", "--number"))]


def related(item: str, /, *, state: State, k: Number = 10, json: Json = False) -> None:
    """List what is bought after an item: directed, so a phone gives a case and a case no phone.

    Parameters
    ----------
    item
        Its id, or its name where the state has names.
    state
        The state directory.
    k
        How many, at most.
    json
        Report as JSON.
    """
    raise ConfigurationError("related: wiring follows")


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
    raise ConfigurationError("recommend: wiring follows")


def explain(
    *,
    state: State,
    user: str | None = None,
    item: str | None = None,
    impression: str | None = None,
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
    json
        Report as JSON.
    """
    raise ConfigurationError("explain: wiring follows")
