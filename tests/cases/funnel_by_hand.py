"""The log of case O12: impressions over six hours, and what follows from some of them; drawn from one seed."""

from __future__ import annotations

import random
from typing import Any

from tests.cases.log_files import BASE

HOUR, MINUTE = 3_600_000, 60_000


def draw_log(seed: int = 7) -> list[dict[str, Any]]:
    """The log, sorted by time: 1,000 impressions over 6 h, 80 clicks, 12 purchases, 2 returns.

    A click comes within 20 min of its impression, a purchase within 3 days of its click.
    """
    draw = random.Random(seed)
    rows = [
        {
            "type": "impression", "event_id": f"i{i}", "ts": BASE + draw.randrange(6 * HOUR),
            "user_id": f"u{draw.randrange(60)}", "request_id": f"r{i}", "item_id": f"item{draw.randrange(40)}",
        }
        for i in range(1000)
    ]  # fmt: skip
    clicks = [follow(row, "click", 20 * MINUTE, draw) for row in draw.sample(rows, 80)]
    purchases = [follow(row, "purchase", 72 * HOUR, draw) for row in draw.sample(clicks, 12)]
    returns = [follow(row, "return", 48 * HOUR, draw) for row in draw.sample(purchases, 2)]
    return sorted([*rows, *clicks, *purchases, *returns], key=lambda row: row["ts"])


def follow(row: dict[str, Any], type_: str, within: int, draw: random.Random) -> dict[str, Any]:
    """An effect of `row`, within so many ms after it."""
    effect = {
        **row,
        "type": type_,
        "event_id": f"{type_[0]}{row['event_id']}",
        "ts": row["ts"] + draw.randrange(1, within),
    }
    if type_ in ("purchase", "return"):
        effect["order_id"] = f"o{row['event_id'].lstrip('pcr')}" if type_ == "purchase" else row["order_id"]
    return effect
