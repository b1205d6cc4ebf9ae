"""The configuration: one frozen, validated object, read once from TOML, `THALWEG_*` variables and the command line.

Durations are written as text with a unit (`"10s"`, `"7d"`) and are integers of milliseconds inside. Unknown keys are
refused. `fingerprint` covers what the state depends on; a state directory keeps it and refuses another one.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec


class ConfigurationError(ValueError):
    """The configuration or the command line is wrong; the message names the key and the mend."""


class Duration(int):
    """A span of time in milliseconds, written `"250ms"`, `"10s"`, `"5m"`, `"6h"`, `"7d"` or `"13w"`.

    >>> int(Duration.parse("7d")), str(Duration.parse("90s"))
    (604800000, '90s')
    """

    _UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `text`; ValueError where it is no whole number with a unit."""
        match = re.fullmatch(r"(\d+)(ms|s|m|h|d|w)", text.strip())
        if match is None:
            raise ValueError(f'{text!r} is no duration; write a whole number and a unit, such as "10s" or "7d"')
        return cls(int(match[1]) * cls._UNITS[match[2]])

    def __str__(self) -> str:
        for unit in ("w", "d", "h", "m", "s"):
            if self and self % self._UNITS[unit] == 0 and not (unit == "m" and self == 0):
                return f"{self // self._UNITS[unit]}{unit}"
        return f"{int(self)}ms"


def _d(text: str) -> Any:
    return msgspec.field(default_factory=lambda: Duration.parse(text))


Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One declared feature: a flat column of impressions (`context`) or of the catalogue (`item`)."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z][A-Za-z0-9_]*$")]
    source: Literal["context", "item"] = "context"
    kind: Literal["categorical", "numeric"] = "categorical"


class Time(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Event time: how late a row may be, what times are plausible, which zone naive times are in."""

    lateness: Duration = _d("10s")
    idle_timeout: Duration = _d("10s")
    max_future: Duration = _d("5m")
    earliest: str | None = None  # ISO 8601; none: from a scan of the files
    latest: str | None = None
    zone: str = "UTC"
    unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"


class Attribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How effects are joined to impressions, and how far back anything is remembered."""

    window: Duration = _d("7d")
    skew_tolerance: Duration = _d("5s")
    orphan_wait: Duration = _d("1d")
    late_conversion: Duration = _d("1d")
    return_window: Duration = _d("30d")
    horizon: Duration = _d("30d")
    history: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 128  # distinct earlier items a purchase is paired with
    pair_half_life: Duration = _d("7d")  # a pair's weight halves with each such span between the two purchases
    keep_user_zero: bool = True  # a user id "0" is a user


class Conversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conversion model and the policy for labels that are still open."""

    policy: Literal["vanilla", "wait", "retraction"] = "retraction"
    bits: Annotated[int, msgspec.Meta(ge=8, le=28)] = 20  # 2**bits weights
    learning_rate: Positive = 0.1
    crosses: tuple[tuple[str, str], ...] = ()  # pairs of feature names, or "item_id", "user_id"
    user_feature: bool = True
    item_feature: bool = True
    checkpoints: tuple[float, ...] = (0.002, 0.01, 0.04, 0.11, 0.23, 0.43, 0.7)  # ages, as shares of the window
    negative_sampling: Annotated[int, msgspec.Meta(ge=1)] = (
        1  # learn one negative in so many; calibration mends the score
    )
    evaluate: bool = True  # keep prequential metrics


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The co-purchase graph and the builds of its embeddings."""

    half_life: Duration = _d("180d")
    customer_period: Duration = _d("31d")  # of one customer a pair counts at most once in such a span
    refresh: Duration = _d("7d")
    refresh_delay: Duration = _d("1d")
    dimensions: Annotated[int, msgspec.Meta(ge=2, le=512)] = 64
    min_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # edges below are left out of a build
    max_edges: Annotated[int, msgspec.Meta(ge=1)] = 12_000_000  # a build reads at most so many, by shrunk z
    max_pairs: Annotated[int, msgspec.Meta(ge=16)] = 16_000_000  # pairs kept; a full table is pruned by shrunk z
    epochs: Annotated[int, msgspec.Meta(ge=0)] = 60
    propagation: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    evidence: float = 0.3  # weight of shrunk z beside the inner product
    recents: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32  # purchases kept a user for queries
    category: str | None = None  # item feature that the ladder of `recommend` falls back to
    seed: int = 1


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calibration table, its readings and the cut."""

    epoch: Duration = _d("1d")
    score_bins: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 256
    score_low: float = -9.0  # logit
    score_high: float = 5.0
    uncertainty_bins: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    levels: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4
    half_life: Duration = _d("28d")
    epochs_kept: Annotated[int, msgspec.Meta(ge=8)] = 400
    evidence: Annotated[int, msgspec.Meta(ge=1)] = 200  # positives a level needs to stand alone
    precision: Share = 0.0  # asked precision of the cut; 0: maximise F1


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state store: when to checkpoint, how pages are cut. None of it changes what the state says."""

    checkpoint: Duration = _d("10s")  # wall time between checkpoints
    page: Annotated[int, msgspec.Meta(ge=512, multiple_of=8)] = 4096  # bytes
    sync: bool = False  # fsync each checkpoint: survives power loss, not only kill -9


RAW_TOPICS = {
    "impressions": "impression",
    "clicks": "click",
    "add_to_carts": "add_to_cart",
    "purchases": "purchase",
    "returns": "return",
    "items": "item",
}
"""Raw topics without a configuration: name -> type of a row that does not say its own."""


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker, its topics and how to speak with it. None of it is in the state or its fingerprint."""

    brokers: str = "127.0.0.1:9092"
    application: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,200}$")] = "thalweg"
    """Name of the consumer group, and what the names of the internal topics begin with."""
    topics: dict[str, str] = msgspec.field(default_factory=lambda: dict(RAW_TOPICS))
    """Raw topic -> type of a row that does not say; "" where each row says."""
    linger: Duration = _d("50ms")  # a block waits so long for more rows
    block_rows: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000  # rows a block at most; a message's size bounds it too
    checkpoint: Duration = _d("500ms")  # wall time between the checkpoints of a live stage, if the last was cheap
    session_timeout: Duration = _d("10s")
    client: dict[str, str] = msgspec.field(default_factory=dict)
    """librdkafka settings, dots or underscores: security_protocol, sasl_mechanism, sasl_username, sasl_password,
    ssl_ca_location, ... Passed to both clients, printed nowhere."""


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. Every field has a default; `Configuration()` is valid.

    >>> Configuration().attribution.window == Duration.parse("7d")
    True
    """

    features: tuple[Feature, ...] = ()
    partitions: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    audit_interval: Duration = _d("1d")
    time: Time = msgspec.field(default_factory=Time)
    attribution: Attribution = msgspec.field(default_factory=Attribution)
    conversion: Conversion = msgspec.field(default_factory=Conversion)
    graph: Graph = msgspec.field(default_factory=Graph)
    calibration: Calibration = msgspec.field(default_factory=Calibration)
    store: Store = msgspec.field(default_factory=Store)
    kafka: Kafka = msgspec.field(default_factory=Kafka)

    def fingerprint(self) -> str:
        """128-bit hex digest of what the state depends on: all but `store`, `kafka` and what only live ingest reads.

        >>> len(Configuration().fingerprint())
        32
        """
        raw = to_builtins(self)
        raw.pop("store")
        raw.pop("kafka")
        for name in ("idle_timeout", "max_future"):  # of live ingest: they decide what comes in, not what becomes of it
            raw["time"].pop(name)
        return hashlib.blake2b(msgspec.json.encode(raw, order="sorted"), digest_size=16).hexdigest()


def _encode(value: Any) -> Any:
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(f"cannot encode {type(value)}")


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration:
        if isinstance(value, Duration):
            return value
        if isinstance(value, str):
            return Duration.parse(value)
        raise ValueError('expected a duration such as "10s" or "7d"')
    raise NotImplementedError(f"cannot decode {kind}")


def to_builtins(configuration: Configuration) -> dict[str, Any]:
    """The configuration as plain dicts, lists, numbers and text (durations as text)."""
    raw: dict[str, Any] = msgspec.to_builtins(configuration, enc_hook=_encode)
    return raw


def from_builtins(raw: Mapping[str, Any], where: str = "configuration") -> Configuration:
    """Validate plain data; ConfigurationError names the place and the key."""
    try:
        configuration = msgspec.convert(raw, Configuration, dec_hook=_decode, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from None
    _check(configuration, where)
    return configuration


def _check(configuration: Configuration, where: str) -> None:
    names = [feature.name for feature in configuration.features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{where}: feature {twice[0]!r} is declared twice; remove one")
    reserved = {
        "event_id", "type", "ts", "user_id", "item_id", "impression_id", "request_id", "order_id",
        "line", "position", "price", "currency", "quantity",
    }  # fmt: skip
    clash = sorted(reserved.intersection(names))
    if clash:
        raise ConfigurationError(f"{where}: feature {clash[0]!r} has the name of an event field; rename it")
    known = {*names, "item_id", "user_id"}
    for cross in configuration.conversion.crosses:
        for name in cross:
            if name not in known:
                raise ConfigurationError(
                    f"{where}: cross {list(cross)} names {name!r}, which is not declared in features"
                )
    if configuration.graph.category is not None and configuration.graph.category not in names:
        raise ConfigurationError(f"{where}: graph.category {configuration.graph.category!r} is no declared feature")
    if configuration.conversion.negative_sampling > 1 and configuration.conversion.policy == "retraction":
        raise ConfigurationError(
            f"{where}: conversion.negative_sampling goes with the policies vanilla and wait; the beliefs of retraction "
            "need the unsampled prior"
        )
    ages = configuration.conversion.checkpoints
    if list(ages) != sorted(set(ages)) or any(not 0 < age < 1 for age in ages):
        raise ConfigurationError(f"{where}: conversion.checkpoints must rise strictly between 0 and 1")
    _check_spans(configuration, where)
    _check_kafka(configuration.kafka, where)


def _check_kafka(kafka: Kafka, where: str) -> None:
    """What the clients would misread, or ingest stumble over."""
    for address in kafka.brokers.split(","):
        match = _ADDRESS.fullmatch(address.strip())
        if not match or int(match[2] or 0) > 65_535:
            raise ConfigurationError(
                f"{where}: kafka.brokers {kafka.brokers!r}: {address.strip()!r} is no address; write host:port, and "
                "commas between several"
            )
    if not kafka.topics:
        raise ConfigurationError(f"{where}: kafka.topics names no raw topic; leave it out to have the six usual ones")
    kinds = (*RAW_TOPICS.values(), "progress", "")
    for topic, kind in kafka.topics.items():
        if kind not in kinds:
            raise ConfigurationError(
                f"{where}: kafka.topics: {topic!r} has rows of type {kind!r}; write {', '.join(kinds[:-1])}, "
                'or "" where each row says it'
            )


_ADDRESS = re.compile(r"(\[[^\s/@\[\]]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?")


def _check_spans(configuration: Configuration, where: str) -> None:
    """Periods and half-lives are divided by: a span of nothing is refused here."""
    c = configuration
    spans = {
        "audit_interval": c.audit_interval, "attribution.window": c.attribution.window,
        "attribution.pair_half_life": c.attribution.pair_half_life, "graph.half_life": c.graph.half_life,
        "graph.refresh": c.graph.refresh, "calibration.epoch": c.calibration.epoch,
        "calibration.half_life": c.calibration.half_life, "kafka.linger": c.kafka.linger,
        "kafka.session_timeout": c.kafka.session_timeout,
    }  # fmt: skip
    for name, span in spans.items():
        if span == 0:
            raise ConfigurationError(f"{where}: {name} must be longer than 0ms")


NOT_SETTINGS = (
    "THALWEG_CACHE", "THALWEG_DEBUG", "THALWEG_FAULT", "THALWEG_TEST_BROKERS",
    "THALWEG_TEST_KAFKA",
)  # fmt: skip
"""Variables that configure the machine or a test, and no `Configuration`."""


def _from_environment(environment: Mapping[str, str], raw: dict[str, Any]) -> None:
    """`THALWEG_CONVERSION__BITS=18` sets conversion.bits: two underscores go down one level."""
    for name, text in sorted(environment.items()):
        if not name.startswith("THALWEG_") or name in NOT_SETTINGS:
            continue
        path = name.removeprefix("THALWEG_").lower().split("__")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        of_client = path[:2] == ["kafka", "client"] and not isinstance(value, str)  # a password of digits is text
        if of_client or isinstance(value, datetime.date | datetime.time):  # and so are times
            value = text
        node = raw
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigurationError(
                    f"environment: {name} looks below {part!r}, which is set to a value; unset one"
                )
        node[path[-1]] = value


def load(
    path: str | Path | None = None, environment: Mapping[str, str] | None = None, **overrides: Any
) -> Configuration:
    """Read the TOML file at `path` (none: the defaults), then `environment`, then `overrides` (top-level keys).

    >>> load(None, {"THALWEG_TIME__LATENESS": "1m"}).time.lateness == 60_000
    True
    """
    raw: dict[str, Any] = {}
    where = "configuration"
    if path is not None:
        where = str(path)
        try:
            raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{where}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{where}: is no TOML: {error}") from None
    _from_environment(os.environ if environment is None else environment, raw)
    raw.update({key: value for key, value in overrides.items() if value is not None})
    return from_builtins(raw, where)
