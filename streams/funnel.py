"""A synthetic funnel with known truth: impression, click, add-to-cart, purchase, return; every law of it is a dial.

`simulate` writes a canonical Parquet log, a configuration beside it (`OUT.toml`) and, where asked, the truth: the true
conversion probability of each impression, the delay law, what was planted in the co-purchase graph. The truth never
touches the log. docs/funnel.md says what each dial plants.

One seed, one file, bit for bit (on one machine and one set of wheels): every group of draws has its own Philox stream,
named by what it draws, so that turning one dial leaves the other draws alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .configuration import ConfigurationError, Duration

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Rate = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Spread = Annotated[float, msgspec.Meta(ge=0, le=10)]
Count = Annotated[int, msgspec.Meta(ge=0, le=50_000_000)]
Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how many rows are done and how many there are (None: not known)."""


def _d(text: str) -> Any:
    return msgspec.field(default_factory=lambda: Duration.parse(text))


class Dials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the funnel looks like. The defaults give rows near 85 % impressions, 10 % clicks, 3 % carts, 2 % purchases.

    >>> Dials().window == Duration.parse("7d")
    True
    """

    start: str = "2025-01-01"  # first day, UTC
    days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 60.0  # span of the log, about
    users: Count = 0  # 0: one for 100 events, at least 50
    items: Count = 0  # 0: one for 500 events, at least 100
    user_zipf: Spread = 0.7  # popularity of rank r falls as r**-zipf
    item_zipf: Spread = 0.9
    slots: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5  # impressions of one request
    guests: Share = 0.03  # share of requests without a user

    features: Annotated[int, msgspec.Meta(ge=0, le=200)] = 8  # categorical context features of impressions
    cardinalities: tuple[Annotated[int, msgspec.Meta(ge=1, le=1_000_000)], ...] = (4, 12, 40, 150, 600)  # in turn
    catalogue: bool = True  # item rows carry category and brand, which matter

    base_rate: Rate = 0.0185  # conversions an impression, before thinning
    signal: Spread = 1.0  # standard deviation, in logits, of what the context features say
    item_effect: Spread = 0.6  # the same of the item (two thirds of the variance is its category's and brand's)
    user_effect: Spread = 0.4
    drift: Spread = 1.0  # radians by which the context effects turn over the span; 0: none
    thin: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1.0  # of the negatives one in so many is kept

    window: Duration = _d("7d")  # a conversion falls within it
    delay: Duration = _d("1d")  # scale of the delay of a conversion
    delay_spread: Spread = 0.7  # by how much the features move its logarithm
    stage_delay: tuple[float, float, float] = (1.5, 1.0, 0.4)  # times so much: no signal, clicked, in the cart
    slow: Share = 0.0  # share of conversions in a second mode, uniform over the last half of the window
    click_rate: Share = 0.118  # clicks an impression
    cart_rate: Share = 0.035  # add-to-carts an impression
    click_given_conversion: Share = 0.8  # equal to click_rate: clicks say nothing
    cart_given_conversion: Share = 0.6
    click_delay: Duration = _d("10m")  # mean, of impressions that do not convert
    cart_delay: Duration = _d("2h")  # mean after the click, likewise

    named_by_impression: Share = 0.9  # effects that name their impression's id
    named_by_request: Share = 0.07  # effects that name request and item; the others name nothing
    pairs: Count = 20  # planted one-way pairs (phone -> case)
    symmetric_pairs: Count = 20
    follow: Share = 0.5  # chance that a purchase of a pair's source is followed by one of its target
    follow_delay: Duration = _d("3d")  # mean time between them
    extra_line: Share = 0.05  # orders with a second line, on an item by popularity
    returns: Share = 0.1  # purchase lines that come back
    return_delay: Duration = _d("8d")  # mean; none comes later than return_window
    return_window: Duration = _d("30d")

    lateness: Duration = _d("10s")  # L: rows are out of order by less than this
    duplicates: Share = 0.01  # rows sent twice, unchanged
    late: Share = 0.0  # rows that come between L and `late_by` after their time
    late_by: Duration = _d("1h")

    @classmethod
    def parse(cls, dials: Mapping[str, Any]) -> Dials:
        """Read dials from plain values or text, as of a command line; ConfigurationError names the dial and the mend.

        >>> Dials.parse({"base_rate": 0.05, "delay": "6h"}).delay
        21600000
        >>> Dials.parse({"stage_delay": "1,1,0.5", "catalogue": "false"}).stage_delay
        (1.0, 1.0, 0.5)
        """
        try:
            read = msgspec.convert(
                {name: _split(cls, name, value) for name, value in dials.items()}, cls, dec_hook=_decode, strict=False
            )
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigurationError(f"funnel dial: {error}; docs/funnel.md lists the dials") from None
        _check(read)
        return read


def _split(dials: type[Dials], name: str, value: Any) -> Any:
    """Text of a dial that is a tuple -> its parts."""
    is_tuple = isinstance(getattr(dials(), name, None), tuple)
    return [part.strip() for part in value.split(",")] if is_tuple and isinstance(value, str) else value


def _decode(kind: type, value: Any) -> Any:
    if kind is not Duration:
        raise NotImplementedError(f"cannot decode {kind}")
    return value if isinstance(value, Duration) else Duration.parse(str(value))


def _check(dials: Dials) -> None:
    def refuse(text: str) -> None:
        raise ConfigurationError(f"funnel dial: {text}")

    if dials.named_by_impression + dials.named_by_request > 1:
        refuse(
            "named_by_impression and named_by_request are shares of one whole; lower one so that they sum to at most 1"
        )
    if dials.cart_given_conversion > dials.click_given_conversion:
        refuse("cart_given_conversion exceeds click_given_conversion, but a cart comes after a click; lower it")
    for signal in ("click", "cart"):
        rate, given = getattr(dials, f"{signal}_rate"), getattr(dials, f"{signal}_given_conversion")
        rest = (rate - dials.base_rate * given) / (1 - dials.base_rate)
        if not 0 <= rest <= 1:
            refuse(
                f"{signal}_rate {rate} is below what conversions alone bring ({dials.base_rate * given:.4g}); raise it"
            )
    if dials.cart_rate > dials.click_rate:
        refuse("cart_rate exceeds click_rate, but a cart comes after a click; lower it")
    if min(dials.delay, dials.click_delay, dials.cart_delay, dials.follow_delay, dials.return_delay, dials.window) <= 0:
        refuse("delay, click_delay, cart_delay, follow_delay, return_delay and window must be above 0")
    if dials.items and dials.slots > dials.items:
        refuse("slots exceeds items, but a request shows an item once; lower slots or raise items")
    if not dials.cardinalities:
        refuse("cardinalities is empty; give at least one number of values")
    if min(dials.stage_delay) <= 0:
        refuse("stage_delay must be above 0 at each stage")
    if dials.late and dials.late_by <= dials.lateness:
        refuse("late_by must exceed lateness where late is above 0")


@dataclass(frozen=True)
class Summary:
    """What `simulate` wrote."""

    out: Path
    configuration: Path
    truth: Path | None
    pairs: Path | None
    rows: dict[str, int]  # rows of the log by type, duplicates included
    duplicates: int
    late: int
    conversions: int  # planted purchases of an impression that are in the log


def simulate(
    out_path: str | Path,
    events: int,
    seed: int,
    truth: str | Path | None = None,
    progress: Progress | None = None,
    **dials: Any,
) -> Summary:
    """Write a log of exactly `events` rows (after one an item) to `out_path`, and its configuration beside it.

    With `truth`, one row an impression of the log goes to that file and the planted pairs to `<truth>.pairs.parquet`.
    `dials` are fields of `Dials`. ConfigurationError where a dial is wrong.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = simulate(Path(folder) / "log.parquet", events=1000, seed=1, duplicates=0)
    >>> summary.rows["item"], sum(summary.rows.values())
    (100, 1100)
    """
    from .funnel_journey import journeys
    from .funnel_population import Population
    from .funnel_writer import write_log, write_truth

    if events < 1:
        raise ConfigurationError(f"events is {events}; ask for at least one")
    if not 0 <= seed < 2**63:
        raise ConfigurationError(f"seed is {seed}; give a whole number between 0 and 2**63 - 1")
    read = Dials.parse(dials)
    out = Path(out_path)
    population = Population.draw(read, events, seed)
    rows = journeys(population, events, progress)
    beside = out.with_name(f"{out.name.split('.')[0]}.toml")  # where replay looks for it
    beside.write_text(configuration_toml(read), encoding="utf-8")
    log = write_log(out, population, rows, events, progress)
    pairs = None
    if truth is not None:
        pairs = write_truth(Path(truth), population, rows, log)
    return Summary(
        out,
        beside,
        None if truth is None else Path(truth),
        pairs,
        log.counts,
        log.duplicates,
        log.late,
        log.conversions,
    )


def feature_names(dials: Dials) -> list[str]:
    """Names of the context features, in the order of the columns.

    >>> feature_names(Dials(features=2))
    ['f00', 'f01']
    """
    return [f"f{j:02d}" for j in range(dials.features)]


def configuration(dials: Dials | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration for a funnel of these dials, as plain data for `configuration.from_builtins`.

    >>> configuration({"features": 1, "catalogue": False})["features"]
    [{'name': 'f00', 'source': 'context', 'kind': 'categorical'}]
    """
    read = dials if isinstance(dials, Dials) else Dials.parse(dials)
    features = [{"name": name, "source": "context", "kind": "categorical"} for name in feature_names(read)]
    if read.catalogue:
        features += [{"name": name, "source": "item", "kind": "categorical"} for name in ("category", "brand")]
    graph: dict[str, Any] = {"half_life": "90d", "refresh": "2w", "refresh_delay": "1d", "dimensions": 32}
    if read.catalogue:
        graph["category"] = "category"
    window = str(read.window)
    return {
        "features": features,
        "time": {"lateness": str(read.lateness)},
        "attribution": {"window": window, "return_window": str(read.return_window), "horizon": "30d"},
        "graph": graph,
    }


def configuration_toml(dials: Dials | Mapping[str, Any]) -> str:
    """The same as TOML text.

    >>> print(configuration_toml({"features": 0, "catalogue": False}).splitlines()[-1])
    dimensions = 32
    """
    raw = configuration(dials)
    lines = ["# Written by `thalweg simulate`: the configuration for the funnel beside it."]
    if not raw["features"]:
        lines.append("features = []")
    for feature in raw.pop("features"):
        lines += ["", "[[features]]", *(f'{key} = "{value}"' for key, value in feature.items())]
    for table, values in raw.items():
        lines += ["", f"[{table}]"]
        lines += [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()
        ]
    return "\n".join(lines) + "\n"
