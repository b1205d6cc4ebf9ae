"""JSON messages to rows, fast: what is in the common form by `json_kernel`, the rest by the strict decoder.

The outcome is that of `decode.Decoder` and `intake.event_rows`, bit for bit, whatever the mix: a test holds the two
side by side. Publishers write the common form (msgspec, `json.dumps`, `JSON.stringify` of flat objects).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .dead_letter import DeadLetter, dead_letter
from .decode import Decoder, Refused, parse
from .event import FIELDS, NOBODY, TYPE_NAMES
from .instant import UTC, zone_of
from .intake import Intake, _distinct, _fill, _multipliers, _numeric_codes, _transpose, feature_seed
from .json_kernel import STRANGERS, Columns, Table, Terms, Tokens, read
from .row import EVENT_ROW, Type, join, pick
from .validation import Rules

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

_ROOM_FOR_NAMES = 4096
_PLACES = 128
_DIVISORS = {"auto": 0, "s": -1, "ms": 1, "us": 1000, "ns": 1_000_000}


class Decoded(NamedTuple):
    """What raw messages came to.

    Attributes
    ----------
    rows, codes : EVENT_ROW [n], uint32 [n, F], in the order of the offsets
    names : (uint64 [m], texts) of the distinct item ids in the rows, in no order that means anything
    rejects : dead letters of the others, in the order of the offsets
    ignored : messages that carried a field which is not in the schema, by field
    """

    rows: npt.NDArray[np.void]
    codes: U32
    names: tuple[U64, list[str]]
    rejects: list[DeadLetter]
    ignored: dict[str, int]


def _joined(words: Sequence[bytes], room: int = 0) -> tuple[npt.NDArray[np.uint8], I64]:
    """Bytes of some words one after the other, with room behind them, and where each begins and the last ends."""
    text = np.frombuffer(b"".join(words) + bytes(room), np.uint8).copy()
    return text, np.cumsum([0] + [len(word) for word in words]).astype(np.int64)


def _table(names: Sequence[str]) -> Table:
    """The names of the schema, and room for strangers."""
    words = [name.encode() for name in names]
    letters, ends = _joined(words, _ROOM_FOR_NAMES)
    top = len(words) + STRANGERS
    ends = np.concatenate([ends, np.zeros(STRANGERS, np.int64)])
    return Table(letters, ends, np.array([len(words)], np.int64), np.zeros(_PLACES, np.int64), np.zeros(top, np.int64))


def _terms(rules: Rules, default_type: int) -> Terms:
    """What the rules ask, for the kernel."""
    configuration = rules.configuration
    words, word_ends = _joined([word.encode() for word in (*NOBODY, "0")])
    first = np.zeros(256, np.uint8)
    first[words[word_ends[:-1]]] = 1
    first[:33], first[127:] = 1, 1
    types, type_ends = _joined([TYPE_NAMES[int(kind)].encode() for kind in Type])
    source = rules.source.encode() + b"#"
    return Terms(
        default=default_type,
        low=rules.bounds.earliest,
        high=rules.bounds.latest,
        divisor=_DIVISORS[configuration.time.unit],
        utc=zone_of(configuration.time) is UTC,
        words=words,
        word_ends=word_ends,
        first=first,
        nobody=len(NOBODY),
        nobody_user=len(NOBODY) + (not configuration.attribution.keep_user_zero),
        types=types,
        type_ends=type_ends,
        used=np.array([[kind in field.used for kind in Type] for field in FIELDS], np.bool_),
        required=np.array([[kind in field.required for kind in Type] for field in FIELDS], np.bool_),
        numeric=np.array([feature.kind == "numeric" for feature in configuration.features], np.bool_),
        seeds=np.array([feature_seed(feature.name) for feature in configuration.features], np.uint64),
        name=_joined([source], 20)[0],
        name_end=len(source),
    )


def _columns(features: int, n: int) -> Columns:
    """Working arrays for n messages."""
    return Columns(
        hashes=np.empty((9, n), np.uint64),
        numbers=np.empty((4, n), np.int64),
        price=np.empty(n, np.float64),
        codes=np.empty((features, n), np.uint32),
        values=np.empty((features, n), np.float64),
        at=np.empty(n, np.int64),
        items=np.empty((2, n), np.int64),
    )


class FastDecoder:
    """Decodes raw messages of one raw partition to rows of thalweg.events; not for two threads at once.

    Parameters
    ----------
    rules : the rules of the source (they name it)
    default_type : `row.Type` of a message that does not say, or `column.UNKNOWN_TYPE`
    source_index : index of the raw partition; becomes `source`

    Fields outside the schema are known by name up to `json_kernel.STRANGERS`; messages with others go the strict way.

    Attributes
    ----------
    messages, handed_over : messages decoded so far, and those among them that the strict decoder had to read

    >>> from .configuration import Configuration
    >>> from .time_bounds import configured
    >>> rules = Rules(Configuration(), configured(Configuration()), "clicks/0")
    >>> decoder = FastDecoder(rules, int(Type.CLICK), 0)
    >>> decoded = decoder.rows([b'{"ts": 1774785600, "item_id": "A"}', b"oops"], np.array([7, 9]))
    >>> decoded.rows["offset"].tolist(), decoded.names[1], [(letter.row, letter.reason) for letter in decoded.rejects]
    ([7], ['A'], [(9, 'bad_json')])
    >>> decoder.messages, decoder.handed_over
    (2, 1)
    """

    def __init__(self, rules: Rules, default_type: int, source_index: int) -> None:
        self.messages = self.handed_over = 0
        self._decoder = Decoder(rules, default_type)
        self._intake = Intake(rules.configuration)
        self._index = source_index
        self._features = rules.configuration.features
        self._table = _table([field.name for field in FIELDS] + [feature.name for feature in self._features])
        self._known = int(self._table.size[0])
        top = len(self._table.met)
        self._tokens = Tokens(np.zeros(top, np.int64), np.zeros(top, np.int64), np.zeros(top, np.int64))
        self._terms = _terms(rules, default_type)
        self._odd = _multipliers(12 + len(self._features))
        self._room = _columns(len(self._features), 0)

    def rows(self, values: Sequence[bytes | None], offsets: I64) -> Decoded:
        """Decode the messages at `offsets` (int64 [n]), which rise and may have holes."""
        n = len(values)
        try:
            data = bytearray().join(values)  # type: ignore[arg-type]
            ends = np.zeros(n + 1, np.int64)
            np.cumsum(np.fromiter(map(len, values), np.int64, n), out=ends[1:])  # type: ignore[arg-type]
        except TypeError:  # a message without a value, which an empty one stands for: both are handed over
            found = [value or b"" for value in values]
            data, ends = bytearray().join(found), np.cumsum([0, *map(len, found)]).astype(np.int64)
        if n > len(self._room.at):
            self._room = _columns(len(self._features), n)
        self._table.met[:] = 0
        got = read(np.frombuffer(data, np.uint8), ends, offsets, self._table, self._tokens, self._terms, self._room)
        self.messages += n
        self.handed_over += n - got
        ignored = self._ignored()
        fast = self._fast(data, offsets, got, ignored)
        return fast if got == n else self._merged(fast, self._strict(values, offsets, got), ignored)

    def _fast(self, data: bytearray, offsets: I64, got: int, ignored: dict[str, int]) -> Decoded:
        """Rows of the first `got` columns of the working arrays."""
        room = self._room
        hashes, numbers, codes = room.hashes[:, :got], room.numbers[:, :got], room.codes[:, :got]
        price, at = room.price[:got], offsets[room.at[:got]]
        for line, values, feature, seed in zip(codes, room.values, self._features, self._terms.seeds, strict=True):
            if feature.kind == "numeric":
                _numeric_codes(values[:got], seed, line)
        rows, by_row = np.empty(got, EVENT_ROW), np.empty((got, len(self._features)), np.uint32)
        _transpose(codes, by_row)
        _fill(rows, hashes, numbers, price, price.view(np.uint64), by_row, self._odd, self._index, at)
        return Decoded(rows, by_row, self._names(data, hashes[3]), [], ignored)

    def _names(self, data: bytearray, hashes: U64) -> tuple[U64, list[str]]:
        """Hash and text of the distinct item ids among the columns."""
        n = len(hashes)
        size = 1 << max(4, (2 * n).bit_length())
        keys, places, first = np.zeros(size, np.uint64), np.empty(size, np.int64), np.empty(n, np.int64)
        at = first[: _distinct(hashes, keys, places, np.zeros(1, np.int64), first)]
        begin, stop = self._room.items[0, at].tolist(), self._room.items[1, at].tolist()
        return hashes[at], [data[a:b].decode() for a, b in zip(begin, stop, strict=True)]

    def _ignored(self) -> dict[str, int]:
        """Strangers met by the kernel in this call, by name."""
        table = self._table
        met = np.flatnonzero(table.met[self._known :]) + self._known
        return {
            table.letters[table.ends[w] : table.ends[w + 1]].tobytes().decode(): int(table.met[w]) for w in met.tolist()
        }

    def _strict(self, values: Sequence[bytes | None], offsets: I64, got: int) -> Decoded:
        """The messages that the kernel left, by the strict decoder: all of them in one batch."""
        left = np.ones(len(values), np.bool_)
        left[self._room.at[:got]] = False
        messages: dict[int, bytes | None] = {}  # by offset: `assemble` looks them up, and offsets may have holes
        objects: list[dict[str, Any]] = []
        at: list[int] = []
        rejects: list[DeadLetter] = []
        ignored: Counter[str] = Counter()
        source, kind = self._decoder.rules.source, TYPE_NAMES.get(self._decoder.default_type, "unknown")
        for i in np.flatnonzero(left).tolist():
            message, offset = values[i], int(offsets[i])
            messages[offset] = message
            try:
                found = parse(message)
            except Refused as error:
                place = (source, offset, offset + 1)
                rejects.append(dead_letter(place, error.reason, message, detail=error.detail, kind=kind))
                continue
            objects.append(found)
            at.append(offset)
            ignored.update(found.keys() - self._decoder._wanted)
        columns = {name: [found.get(name) for found in objects] for name in self._decoder._wanted}
        batch = self._decoder.assemble(columns, at, messages, 0, None, rejects, ignored)  # type: ignore[arg-type]
        rows, codes, (hashes, texts) = self._intake.rows(batch, self._index)
        return Decoded(rows, codes, (hashes, texts.to_pylist()), batch.rejects, batch.ignored)

    def _merged(self, fast: Decoded, strict: Decoded, ignored: dict[str, int]) -> Decoded:
        """Both in the order of the offsets."""
        rows, codes = join([fast.rows, strict.rows]), np.concatenate([fast.codes, strict.codes])
        if len(fast.rows) and len(strict.rows):
            order = np.argsort(rows["offset"])
            rows, codes = pick(rows, order), codes[order]
        names = dict(zip(fast.names[0].tolist(), fast.names[1], strict=True))
        names.update(zip(strict.names[0].tolist(), strict.names[1], strict=True))
        told = np.array(list(names), np.uint64), list(names.values())
        return Decoded(rows, codes, told, strict.rejects, dict(Counter(ignored) + Counter(strict.ignored)))
