"""The summary of a replay: plain data that becomes JSON, and from which the report is drawn.

`thalweg.streams.summing_up.sum_up` fills it from the stages, `thalweg.streams.report.render` shows it. Times are ms,
UTC, of event time; None stands for "not known", also where a score is undefined (no positive yet, say).
"""

from __future__ import annotations

from typing import TypedDict


class Run(TypedDict):
    """What was replayed, and how fast. `seconds`, `rate` and `memory` (peak, bytes) are of this run alone."""

    state: str
    logs: list[str]
    fingerprint: str
    partitions: int
    policy: str
    events: int
    seconds: float
    rate: float
    memory: int
    checkpoints: int
    checkpoint_bytes: int
    first: int | None
    clock: int | None
    late: int
    closed: bool
    interrupted: bool


class Books(TypedDict):
    """The books: `events` by type and term, `labels` by term; each gap names a sum that does not hold."""

    events: dict[str, dict[str, int]]
    labels: dict[str, int]
    balanced: bool
    gaps: list[str]


class Total(TypedDict):
    """Scores of one predictor over all matured predictions; `ratio`: predicted over actual conversions."""

    name: str
    trials: int
    positives: int
    log_loss: float | None
    auc: float | None
    pr_auc: float | None
    ratio: float | None
    error: float | None


class Week(TypedDict):
    """Scores of one predictor over the impressions of the week that begins at `ts`."""

    ts: int
    name: str
    trials: int
    positives: int
    log_loss: float
    ratio: float | None


class PairedInterval(TypedDict):
    """Mean log-loss of one predictor minus another's, 95 % interval paired over weeks; below 0: the first wins."""

    name: str
    difference: float | None
    low: float | None
    high: float | None
    weeks: int


class Prequential(TypedDict):
    """Predict, wait until the label has matured, then score: the model beside its baselines."""

    total: list[Total]
    weeks: list[Week]
    intervals: list[PairedInterval]


class Ranked(TypedDict):
    """How often a pair that was bought later is among the ten items related to its first: HR@10, MRR@10, of a method.

    `pairs` later pairs, all versions together.
    """

    name: str
    pairs: int
    hit_rate: float
    reciprocal_rank: float


class RankedAt(TypedDict):
    """The same for one version of the embeddings, made at `ts`, on the pairs of the period after it."""

    ts: int
    name: str
    pairs: int
    hit_rate: float
    reciprocal_rank: float


class Related(TypedDict):
    """`related` beside its baselines: in total, and version by version."""

    total: list[Ranked]
    refreshes: list[RankedAt]


class Point(TypedDict):
    """Some matured predictions of one uncertainty level: mean raw, predicted and actual rate, 90 % interval of it."""

    level: int
    trials: int
    raw: float
    predicted: float
    actual: float
    low: float
    high: float


class Level(TypedDict):
    """One uncertainty level of the newest reading: its bins, and its threshold as a raw probability (None: no cut)."""

    level: int
    bins: int
    threshold: float | None


class EpochScores(TypedDict):
    """Log-loss of one epoch's impressions, raw score and calibrated rate, by the reading that was frozen before it."""

    ts: int
    trials: int
    positives: int
    levels: int
    raw: float
    calibrated: float


class Threshold(TypedDict):
    """The threshold of a level in the reading of an epoch, as a raw probability."""

    ts: int
    level: int
    threshold: float


class Calibration(TypedDict):
    """What "0.8" meant: reliability by level, log-loss by epoch, thresholds over time."""

    readings: int
    levels: list[Level]
    points: list[Point]
    epochs: list[EpochScores]
    thresholds: list[Threshold]
    total: dict[str, float | None]


class Version(TypedDict):
    """One build of the embeddings, from what was known at `ts`.

    `method`, and why, of "svd" and "propagation", whose HR@10 on held-back pairs stand in `svd` and `propagation`;
    `pairs` with positive shrunk z; `one_way`: share of tested pairs with a significant direction; digest of `inputs`.
    """

    version: int
    ts: int
    method: str
    reason: str
    items: int
    pairs: int
    svd: float | None
    propagation: float | None
    one_way: float | None
    inputs: str


class Graph(TypedDict):
    """The co-purchase graph now, and the embedding versions made of it."""

    items: int
    edges: int
    versions: list[Version]


class Table(TypedDict):
    """Bytes of one table of one stage, shards summed."""

    stage: str
    table: str
    bytes: int


class Audit(TypedDict):
    """Digest of one stage now (hex), and the last entries of its audit trail as (ms, hex)."""

    stage: str
    digest: str
    entries: int
    last: list[tuple[int, str]]


class ReplaySummary(TypedDict):
    """All of it; the keys are the sections of the report."""

    run: Run
    books: Books
    prequential: Prequential
    related: Related
    calibration: Calibration
    graph: Graph
    tables: list[Table]
    dropped: dict[str, int]
    dead_letters: dict[str, int]
    audit: list[Audit]
