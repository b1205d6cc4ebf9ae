"""The exposures and features of the Complete Journey, row by row: slow, and plain to see."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from thalweg.graph_store.hash import mix64

DAY = 86_400
START = int(datetime(2017, 1, 1, tzinfo=ZoneInfo("America/New_York")).timestamp())
Row = dict[str, Any]


def seconds(moment: datetime) -> int:
    """Seconds UTC of a transaction's time, which has no zone and is UTC."""
    return int(moment.replace(tzinfo=ZoneInfo("UTC")).timestamp())


def purchases(data: dict[str, list[Row]]) -> list[Row]:
    lines: dict[int, int] = {}
    out = []
    for row in data["transactions"]:
        lines[row["basket_id"]] = lines.get(row["basket_id"], 0) + 1
        if row["quantity"] > 0:
            out.append({**row, "second": seconds(row["transaction_timestamp"]), "line": lines[row["basket_id"]]})
    return sorted(out, key=lambda row: row["second"])


def coupons(data: dict[str, list[Row]]) -> set[tuple[str, int]]:
    """(event id, second) of the coupon exposures."""
    bought = purchases(data)
    out = set()
    for campaign in data["campaign_descriptions"]:
        if campaign["campaign_type"] == "Type A":
            continue
        start = int(campaign["start_date"].replace(tzinfo=ZoneInfo("America/New_York")).timestamp())
        number = campaign["campaign_id"]
        for member in data["campaigns"]:
            for coupon in data["coupons"]:
                if member["campaign_id"] == coupon["campaign_id"] == number and any(
                    p["household_id"] == member["household_id"]
                    and p["product_id"] == coupon["product_id"]
                    and p["second"] < start
                    for p in bought
                ):
                    out.add((f"coupon-{number}-{member['household_id']}-{coupon['product_id']}", start))
    return out


def shelf(data: dict[str, list[Row]], limit: int) -> dict[str, Row]:
    """Event id -> second, display and mailer of the display and mailer exposures."""
    numbers = sorted(product["product_id"] for product in data["products"])
    kind = {product["product_id"]: product["product_type"] for product in data["products"]}
    bought = purchases(data)
    visits = {p["basket_id"]: p for p in bought}
    out: dict[str, Row] = {}
    for basket, visit in visits.items():
        second = visit["second"] - 15 * 60
        known = {
            kind.get(p["product_id"])
            for p in bought
            if p["household_id"] == visit["household_id"] and p["second"] < second
        }
        known.discard(None)
        promoted: dict[int, Row] = {}
        for row in data["promotions"]:
            shows = (row["display_location"], row["mailer_location"]) != ("0", "0")
            here = (row["store_id"], row["week"]) == (visit["store_id"], visit["week"])
            if shows and here and kind.get(row["product_id"]) in known:
                before = promoted.get(row["product_id"])
                if before is None or before["display_location"] == "0":
                    promoted[row["product_id"]] = row
        salt = mix64(np.uint64(basket))
        ranked = sorted(promoted, key=lambda number: int(mix64(salt ^ np.uint64(numbers.index(number)))))
        for number in ranked[:limit]:
            out[f"shelf-{basket}-{visit['household_id']}-{number}"] = {**promoted[number], "second": second}
    return out


def features(data: dict[str, list[Row]], household: int, product: int, second: int) -> tuple[str, str, str, str, str]:
    """bought, since, type_bought, type_since, visits at an instant."""
    kind = {row["product_id"]: row["product_type"] for row in data["products"]}
    own = [p for p in purchases(data) if p["household_id"] == household and p["second"] < second]
    same = [p["second"] for p in own if p["product_id"] == product]
    alike = [p["second"] for p in own if kind.get(p["product_id"]) == kind.get(product)]
    recent = {p["basket_id"] for p in own if p["second"] >= second - 28 * DAY}
    return (_count(len(same)), _since(same, second), _count(len(alike)), _since(alike, second), _count(len(recent)))


def _count(n: int) -> str:
    for name, low, high in (("0", 0, 0), ("1", 1, 1), ("2", 2, 2), ("3-4", 3, 4), ("5-9", 5, 9), ("10-19", 10, 19)):
        if low <= n <= high:
            return name
    return "20+"


def _since(times: list[int], second: int) -> str:
    if not times:
        return "never"
    days = (second - max(times)) // DAY
    for name, low, high in (
        ("0", 0, 0),
        ("1-2", 1, 2),
        ("3-6", 3, 6),
        ("7-13", 7, 13),
        ("14-27", 14, 27),
        ("28-55", 28, 55),
    ):
        if low <= days <= high:
            return name
    return "56-111" if days < 112 else "112+"
