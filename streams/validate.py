"""`thalweg validate`: what is wrong with a log, before anything learns from it.

The log is read the way a replay reads it (same files, same rules, same clock), and nothing is kept but counts, hashes
of event ids (32 to 64 bytes an event) and a few examples. Each check is one line, PASS or FAIL; a FAIL says where to
look and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.hash import pair64
from thalweg.graph_store.hash_index import HashIndex, find, put
from thalweg.graph_store.kernel import kernel

from .configuration import Configuration, Duration
from .dead_letter import DeadLetter, Reason
from .event import CanonicalBatch
from .log import Log, Progress, open_log
from .log_check import EXAMPLES, Check, Report
from .log_file import LogError, LogFile
from .reader import Reader
from .row import Type

ORPHANS = 0.05
"""Share of effects (or returns) whose cause may be missing from the log: a log begins somewhere."""
COPIES = 0.10
"""Share of rows that may be copies of earlier ones; more looks like a file given twice."""

_ROWS = 65_536
_READ: tuple[tuple[str, tuple[Reason, ...], str], ...] = (
    (
        "rows can be parsed",
        (
            Reason.BAD_JSON,
            Reason.NULL_PAYLOAD,
            Reason.NOT_AN_OBJECT,
            Reason.DUPLICATE_KEY,
            Reason.BAD_ENCODING,
            Reason.BAD_ROW,
            Reason.HEADER_ROW,
        ),
        "write one JSON object a line, or CSV in UTF-8 with as many fields as headings",
    ),
    (
        "types are known",
        (Reason.BAD_TYPE, Reason.RESERVED_TYPE),
        "give each row a type (item, impression, click, add_to_cart, purchase, return) or name the file for it",
    ),
    (
        "times are plausible",
        (Reason.BAD_TIMESTAMP,),
        "send ISO 8601 with a zone, or numbers in s, ms, us, ns; set time.earliest and time.latest where they are true",
    ),
    ("ids are ids", (Reason.BAD_ID,), "send ids as text, or as whole numbers"),
    ("required fields are there", (Reason.MISSING_FIELD,), "send the field; see docs/event_schema.md"),
    (
        "numbers are numbers",
        (Reason.BAD_QUANTITY, Reason.BAD_NUMBER),
        "send plain numbers: quantity whole from 1, price from 0, no currency signs or thousands separators",
    ),
    ("features can be read", (Reason.BAD_FEATURE,), "send text, a number or true and false"),
)


def validate(paths: Sequence[str | Path], configuration: Configuration, progress: Progress | None = None) -> Report:
    """Check a log; a log that cannot be opened at all gives a report with that one failed check.

    >>> validate(["no.csv"], Configuration()).lines()[1].strip()
    'no.csv: there is no such file or folder'
    """
    try:
        log = open_log(paths, configuration, progress=progress)
    except LogError as error:
        return Report([Check("files can be opened", False, "refused", [str(error)], "as the line above says")])
    look = _Look(log, configuration)
    look.read(progress)
    return look.report()


class _Watched:
    """A file that is read through: counts what the reader does not pass on."""

    def __init__(self, file: LogFile, look: _Look) -> None:
        self.name = file.name
        self._file = file
        self._look = look

    def batches(self, start_row: int, rows: int) -> Iterator[CanonicalBatch]:
        for batch in self._file.batches(start_row, rows):
            self._look.watch(batch)
            yield batch


class _Look:
    """One reading of a log, and what it found."""

    def __init__(self, log: Log, configuration: Configuration) -> None:
        self.log = log
        self.configuration = configuration
        self.rows = 0
        self.ignored: dict[str, int] = {}
        self.absent = {feature.name for feature in configuration.features}
        self.rejects: dict[str, list[DeadLetter]] = {}
        self.rejected: dict[str, int] = {}
        self.late = _Tally()
        self.late_most = 0
        self.copies, self.conflicts = _Tally(), _Tally()
        self.effects = _Match(log)
        self.returns = _Match(log)
        self.items = _Match(log)
        self._ids, self._mentioned = HashIndex(), HashIndex()

    def watch(self, batch: CanonicalBatch) -> None:
        """Count the raw rows, the ignored fields, the features present and the rejects of a batch."""
        self.rows += batch.end - batch.start
        for name, count in batch.ignored.items():
            self.ignored[name] = self.ignored.get(name, 0) + count
        self.absent = {name for name in self.absent if batch.events.column(name).null_count == len(batch.events)}
        for letter in batch.rejects:
            reason = letter.reason.partition(":")[0]
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
            held = self.rejects.setdefault(reason, [])
            if len(held) < EXAMPLES:
                held.append(letter)

    def read(self, progress: Progress | None) -> None:
        """Read the log as a replay does."""
        known = [file.rows for file in self.log.files]
        total = sum(rows for rows in known if rows is not None) if None not in known else None
        files: list[tuple[int, Any]] = [(index, _Watched(file, self)) for index, file in enumerate(self.log.files)]
        for piece in Reader(files, self.configuration).pieces(_ROWS):
            self._check(piece.block.rows)
            if progress is not None:
                progress("checking the log", self.rows, total)

    def _check(self, rows: npt.NDArray[np.void]) -> None:
        place = self._place
        below = np.flatnonzero(rows["ts"] < rows["clock"])
        if len(below):
            behind = rows["clock"][below] - rows["ts"][below]
            self.late_most = max(self.late_most, int(behind.max()))
            self.late.add(
                len(below),
                lambda: [
                    f"{place(rows, i)}: {_span(int(rows['clock'][i] - rows['ts'][i]))} late" for i in below[:EXAMPLES]
                ],
            )
        verdict = np.zeros(len(rows), np.int8)
        self._ids.reserve(len(rows))
        _seen(self._ids.keys, self._ids.values, self._ids.count, rows, verdict)
        for tally, code in ((self.copies, 1), (self.conflicts, 2)):
            at = np.flatnonzero(verdict == code)
            tally.add(len(at), lambda at=at: [place(rows, i) for i in at[:EXAMPLES]])  # type: ignore[misc]
        self._match(rows)

    def _match(self, rows: npt.NDArray[np.void]) -> None:
        """Causes and effects: impressions and what names them, orders and returns, the catalogue and items."""
        kind = rows["rank"]
        impressions, sold = rows[kind == Type.IMPRESSION], rows[kind == Type.PURCHASE]
        returned = rows[(kind == Type.RETURN) & (rows["order"] != 0)]
        effects = rows[(kind >= Type.CLICK) & (kind <= Type.PURCHASE)]
        named, asked = (
            effects[effects["impression"] != 0],
            effects[(effects["impression"] == 0) & (effects["request"] != 0)],
        )
        pairs, request = _pairs, _requests
        self.effects.causes(
            np.concatenate([pairs(impressions["key"], impressions["impression"]), request(impressions)])
        )
        self.effects.add(
            np.concatenate([pairs(named["key"], named["impression"]), request(asked)]), np.concatenate([named, asked])
        )
        self.returns.causes(pairs(sold["order"], sold["item"]))
        self.returns.add(pairs(returned["order"], returned["item"]), returned)
        self.items.causes(np.ascontiguousarray(rows["item"][kind == Type.ITEM]))
        others = rows[(kind != Type.ITEM) & (rows["item"] != 0)]
        items, first = np.unique(others["item"], return_index=True)
        new = self._mentioned.find_many(items) < 0
        self._mentioned.put_many(items[new], np.zeros(int(new.sum()), np.int64))
        self.items.add(items[new], others[first[new]])

    def _place(self, rows: npt.NDArray[np.void], i: int) -> str:
        return self.log.files[int(rows["source"][i])].place(int(rows["offset"][i]))

    def report(self) -> Report:
        """The checks, in the order in which to mend."""
        unfinished = self.log.unfinished
        checks = [
            Check(
                "files are whole", not unfinished, f"{len(self.log.files)} files, {self.rows:,} rows",
                unfinished[:EXAMPLES], "send the files named above again; what could be read of them is used",
            )
        ]  # fmt: skip
        for name, reasons, mend in _READ:
            counts = {reason.value: self.rejected[reason.value] for reason in reasons if reason.value in self.rejected}
            examples = [_example(letter) for reason in counts for letter in self.rejects[reason]]
            detail = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            checks.append(Check(name, not counts, detail, examples[:EXAMPLES], mend, dead_letters=True))
        checks += [*self._order(), *self._identity(), *self._causes(), *self._features()]
        return Report(checks, self.rows, sum(self.rejected.values()), f"{self.log.bounds} ({self.log.bounds.origin})")

    def _order(self) -> list[Check]:
        lateness = self.configuration.time.lateness
        enough = Duration(-(-(self.late_most + lateness) // 1000) * 1000)
        mend = f"sort the log by ts, or set time.lateness to {enough} or more"
        detail = f"{self.late.count:,} rows more than {lateness} behind" if self.late.count else f"lateness {lateness}"
        return [Check("rows come in order", self.late.count == 0, detail, self.late.examples, mend)]

    def _identity(self) -> list[Check]:
        notes = [note for file in self.log.files for note in file.notes]
        few = self.copies.count <= COPIES * self.rows
        return [
            Check(
                "no event comes twice", few,
                f"{self.copies.count:,} copies, dropped and counted" if self.copies.count else "",
                self.copies.examples, "give each file once; send each event once",
            ),
            Check(
                "an event id has one content", self.conflicts.count == 0,
                f"{self.conflicts.count:,} rows differ from an earlier one" if self.conflicts.count else "",
                self.conflicts.examples, "make event ids unique within a type",
            ),
            Check("ids keep their form", not notes, "", notes[:EXAMPLES], "write ids as text, without `.0`"),
        ]  # fmt: skip

    def _causes(self) -> list[Check]:
        checks = []
        for match, name, cause, mend in (
            (
                self.effects,
                "effects find the impression they name",
                "impressions",
                "log the impressions as well, under the same user",
            ),
            (
                self.returns,
                "returns find the order they name",
                "purchases",
                "log the purchases as well; give returns the id of their order",
            ),
            (self.items, "items are in the catalogue", "items", "send an item row for each item"),
        ):
            missing, examples = match.missing()
            detail = f"{missing:,} of {match.count:,} do not" if match.any_cause else f"the log has no {cause}"
            good = not match.any_cause or missing <= ORPHANS * match.count
            checks.append(Check(name, good, detail, examples, mend))
        return checks

    def _features(self) -> list[Check]:
        absent = sorted(self.absent)
        ignored = ", ".join(f"{name} ({count:,})" for name, count in sorted(self.ignored.items())[:20])
        return [
            Check(
                "declared features are there", not absent, f"never a value of {', '.join(absent)}" if absent else "",
                [], "fill the columns, or take them out of the configuration",
            ),
            Check("fields are used", True, f"ignored: {ignored}" if ignored else "none is ignored"),
        ]  # fmt: skip


class _Tally:
    """A count and the first examples."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, count: int, examples: Callable[[], list[str]]) -> None:
        """Count some more; `examples` is asked only while there is room."""
        self.count += count
        if count and len(self.examples) < EXAMPLES:
            self.examples = (self.examples + examples())[:EXAMPLES]


class _Match:
    """Effects that name a cause, and the causes there are; matched when all is read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known = HashIndex()
        self._wanted: list[npt.NDArray[np.uint64]] = []
        self._places: list[npt.NDArray[np.int64]] = []
        self.count = 0
        self.any_cause = False

    def causes(self, keys: npt.NDArray[np.uint64]) -> None:
        """These causes are in the log."""
        if len(keys):
            self.any_cause = True
            self._known.put_many(keys, np.zeros(len(keys), np.int64))

    def add(self, keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.void]) -> None:
        """These rows name these causes."""
        if len(keys):
            self.count += len(keys)
            self._wanted.append(keys)
            self._places.append(np.stack([rows["source"], rows["offset"]], axis=1))

    def missing(self) -> tuple[int, list[str]]:
        """How many named causes are not there, and the first places that name one."""
        count = 0
        examples: list[str] = []
        for keys, places in zip(self._wanted, self._places, strict=True):
            at = np.flatnonzero(self._known.find_many(keys) < 0)
            count += len(at)
            for source, offset in places[at[: EXAMPLES - len(examples)]].tolist():
                examples.append(self._log.files[source].place(offset))
        return count, examples


@kernel
def _seen(keys, values, count, rows, out):  # type: ignore[no-untyped-def]
    """out[i]: 0 the first of its type and id, 1 a copy of the first, 2 of another content."""
    for i in range(rows.shape[0]):
        if rows["rank"][i] == 6:
            continue
        key = pair64(np.uint64(rows["rank"][i]), rows["id"][i])
        tie = np.int64(rows["tie"][i] >> np.uint64(1))
        held = find(keys, values, key)
        if held < 0:
            put(keys, values, count, key, tie)
        else:
            out[i] = 1 if held == tie else 2


@kernel
def _pair_each(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] = pair64(a[i], b[i])


def _pairs(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    out = np.empty(len(a), np.uint64)
    _pair_each(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
    return out


def _requests(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Key, request and item as one name."""
    rows = rows[rows["request"] != 0]
    return _pairs(_pairs(rows["key"], rows["request"]), rows["item"])


def _span(ms: int) -> str:
    return str(Duration(ms)) if ms < 60_000 or ms % 60_000 == 0 else f"{ms / 60_000:,.1f} min"


def _example(letter: DeadLetter) -> str:
    raw = "null" if letter.raw is None else letter.raw[:100].decode("utf-8", "replace")
    return f"{letter.source} line {letter.line:,}: {letter.reason} ({letter.detail}): {raw}"
