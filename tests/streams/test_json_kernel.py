"""The fast decoder against the strict one followed by the intake, bit for bit, for good, bad and odd messages."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thalweg.streams.column import UNKNOWN_TYPE
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.decode import Decoder
from thalweg.streams.event import FIELDS, TYPES
from thalweg.streams.intake import event_rows
from thalweg.streams.json_kernel import STRANGERS
from thalweg.streams.json_rows import FastDecoder
from thalweg.streams.time_bounds import configured
from thalweg.streams.validation import Rules

FEATURES = [{"name": "channel"}, {"name": "score", "kind": "numeric"}, {"name": "brand", "source": "item"}]
PLAIN = from_builtins({"features": FEATURES})
CONFIGURATIONS = [
    PLAIN,
    from_builtins({}),
    from_builtins({"features": FEATURES, "attribution": {"keep_user_zero": False}, "time": {"unit": "ms"}}),
    from_builtins({"time": {"unit": "s", "earliest": "2026-03-02T12:00:00Z", "latest": "2026-04-01T00:00:00Z"}}),
    from_builtins({"features": FEATURES, "time": {"unit": "us", "zone": "America/New_York"}}),
    from_builtins({"time": {"unit": "ns"}}),
]
Messages = list[bytes | None]
Offsets = npt.NDArray[np.int64]


def rules_of(configuration: Configuration) -> Rules:
    return Rules(configuration, configured(configuration), "clicks/é0")


def strictly(rules: Rules, default: int, messages: Messages, offsets: Offsets) -> tuple[Any, ...]:
    """What it has to come to: run by run of neighbouring offsets, by the two that define it."""
    rows, codes, names, rejects, ignored = [], [], {}, [], {}  # type: ignore[var-annotated]
    for message, offset in zip(messages, offsets.tolist(), strict=True):
        batch = Decoder(rules, default).decode([message], offset)
        some_rows, some_codes, (hashes, texts) = event_rows(batch, rules.configuration, 3)
        rows.append(some_rows.tobytes())
        codes.append(some_codes.tobytes())
        names.update(zip(hashes.tolist(), texts.to_pylist(), strict=True))
        rejects += batch.rejects
        for name, count in batch.ignored.items():
            ignored[name] = ignored.get(name, 0) + count
    return b"".join(rows), b"".join(codes), names, rejects, ignored


def quickly(decoder: FastDecoder, messages: Messages, offsets: Offsets) -> tuple[Any, ...]:
    decoded = decoder.rows(messages, offsets)
    names = dict(zip(decoded.names[0].tolist(), decoded.names[1], strict=True))
    assert len(names) == len(decoded.names[1])
    assert decoded.codes.shape == (len(decoded.rows), len(decoder._features))
    return decoded.rows.tobytes(), decoded.codes.tobytes(), names, decoded.rejects, decoded.ignored


def check(messages: Messages, configuration: Configuration = PLAIN, default: int = 2) -> int:
    """Both ways, all at once; the number of messages handed over."""
    offsets = np.arange(len(messages), dtype=np.int64)
    rules = rules_of(configuration)
    decoder = FastDecoder(rules, default, 3)
    assert quickly(decoder, messages, offsets) == strictly(rules, default, messages, offsets)
    assert decoder.messages == len(messages)
    return decoder.handed_over


IDS = st.sampled_from(
    ["u1", "0108775015", "undefined", "undefine", "None", "null", " null", "null ", "n", "NaN", "[object Object]", "0"]
    + ["", " ", "  a", "a ", "00", "é", "日本", 'a"b', "a\\b", "a/b", "\x7f", "\t", "x" * 40, 0]
    + ["null\u00a0", "\u2003null", "\u0085", "\x00null", "null\n", "a\u0301é", "😀", "x😀y", "Käse 1", "\x1fa\x1f"]
    + [17850, 17850.0, -5, 10**18, 10**17, 2**63, 2**64, 1.5, True, None, [], {}, ["a"]]
)
TIMES = st.sampled_from(
    [1774785600, 1774785600000, 1774785600000000, 1774785600000000000, "1774785600", "01774785600", "1774785600.5"]
    + [1774785600.0, 1774785600.123, 1774785600123.25, 0, -1, 1, 1e300, 2**63 - 1, 2**63, 10**11, 10**11 - 1, 10**14]
    + ["2026-03-29T12:00:00Z", "2026-03-29 12:00:00z", "2026-03-29t12:00:00.1Z", "2026-03-29T14:00:00+02:00"]
    + ["2026-03-29T12:00:00.123456789Z", "2026-03-29T12:00:00,12Z", "2026-03-29T12:00:00.1234567890Z"]
    + ["2026-03-29T12:00:00.Z", "2026-03-29T12:00:00", "2026-03-29T12:00Z", "2026-03-29T12:00:00+0200"]
    + ["2026-03-29T12:00:00+02", "2026-03-29T12:00:00-23:59", "2026-03-29T12:00:00+24:00", "2026-03-29T12:00:00+01:60"]
    + ["2026-02-29T12:00:00Z", "2028-02-29T12:00:00Z", "2000-02-29T00:00:00Z", "2026-13-01T00:00:00Z"]
    + ["2026-03-29T24:00:00Z", "2026-03-29T23:60:00Z", "2026-03-29T23:59:60Z", "2026-00-10T00:00:00Z"]
    + ["2026-03-00T00:00:00Z", "2026-04-31T00:00:00Z", "10013-12-10T01:09:46Z", "9999-05-28T13:13:23Z"]
    + ["-0025-01-01T23:01:01Z", "0000-00-00 00:00:00", "2026-03-08 02:30:00", "2026-11-01 01:30:00"]
    + ["2026-03-29", "yesterday", "", None, True, "2026-03-29T12:00:00 Z", "2026-03-29T12:00:00.5"]
    + ["2099-12-31T23:59:59.999Z", "2100-01-01T00:00:00Z", "2100-01-01T00:00:00.001Z", "1999-12-31T23:59:59.999Z"]
)
NUMBERS = st.one_of(
    st.sampled_from(
        [0, -0.0, 1, 3, 3.0, 1.5, -1, -5, 10**6, 10**6 + 1, 10**12, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63, 10**18]
        + ["3", "3.0", "03", "-0", "0", "00", "", " 3", "1e3", "1E3", "1_000", "6,795", "$5", "１２", "nan", "—"]
        + ["175.0000", "+1", ".5", "5.", "1.5.5", "-1", "0.1", "123456789012345678", "1234567890123456789"]
        + [
            "0.000000000000000000001",
            "9007199254740993.0",
            "0.8444218515250481",
            "1" * 70,
            1e-5,
            1e22,
            1e300,
            True,
            None,
            [1],
            "eur",
            "é",
        ]
        + [2.0**-0.5, 2.0**-0.25, 2.0**-0.75, 0.7071067811865475, 0.49999999999999994, 0.9999999999999999]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1000),
    st.decimals(0, 10**6, places=3).map(str),
    st.decimals(0, 1, places=17).map(str),
    st.integers(0, 10**19),
)
KINDS = st.sampled_from([*TYPES, *TYPES, "Click", "forget", "", None, 2, " click", "clic", "clicks"])
CATEGORIES = st.one_of(IDS, st.sampled_from([True, False, 0.5, 3.0, "mail", "false"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{field.name: IDS for field in FIELDS},
    "type": KINDS, "ts": TIMES, "position": NUMBERS, "price": NUMBERS, "quantity": NUMBERS, "currency": CATEGORIES,
    "channel": CATEGORIES, "brand": CATEGORIES, "score": NUMBERS,
    "extra": st.one_of(IDS, NUMBERS), "Item_ID": IDS, "trace": IDS, "é": IDS, "": IDS, "a b": NUMBERS,
}  # fmt: skip
GOOD = {"ts": 1774785600000, "item_id": "A"}
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t\r ", "  ", "\x0b"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A good event with some fields said otherwise, in any order, perhaps twice, with blanks."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=5))
    fields = [*GOOD.items(), *((name, draw(VALUES[name])) for name in names)]
    if draw(st.integers(0, 5)):
        fields = list(dict(fields).items())
    fields = draw(st.permutations(fields))
    a, b, c = draw(BLANKS), draw(BLANKS), draw(BLANKS)
    ascii_only = draw(st.booleans())
    parts = [
        f"{a}{json.dumps(k, ensure_ascii=ascii_only)}{b}:{c}{json.dumps(v, ensure_ascii=ascii_only)}" for k, v in fields
    ]
    return f"{c}{{{(a + ',').join(parts)}{b}}}{a}".encode()


def clean(i: int) -> dict[str, Any]:
    """An event as a publisher writes it."""
    kind = list(TYPES)[i % len(TYPES)]
    event = {
        "event_id": f"e{i}", "type": kind, "ts": 1774785600000 + i, "user_id": f"u{i % 7}", "item_id": f"i{i % 5}",
        "request_id": f"r{i % 3}", "order_id": f"o{i % 4}", "line": i % 3, "position": i % 10, "price": i / 100,
        "currency": "EUR", "quantity": 1 + i % 4, "channel": "mail", "score": i / 7, "brand": i,
    }  # fmt: skip
    if i % 3 == 0:
        event["ts"] = f"2026-03-29T12:00:{i % 60:02d}.{i % 1000:03d}+00:00"
    for absent in ("user_id", "price", "event_id", "channel")[i % 5 : i % 5 + 1]:
        event[absent] = None
    return event


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A clean message with some bytes changed, put in, taken out, or its end cut off."""
    message = bytearray(msgspec.json.encode(clean(draw(st.integers(0, 200)))))
    alphabet = st.sampled_from([*b'"\\{}[]:,.-+eE0123456789 tfn\n', 0, 127, 195, 169, 255])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(message) - 1))
        how = draw(st.sampled_from(["change", "insert", "delete", "cut", "repeat"]))
        if how == "change":
            message[at] = draw(alphabet)
        elif how == "insert":
            message.insert(at, draw(alphabet))
        elif how == "delete" and len(message) > 1:
            del message[at]
        elif how == "cut" and at:
            del message[at:]
        elif how == "repeat":
            message[at:at] = message[max(0, at - 12) : at]
    return bytes(message)


MESSAGES = st.one_of(
    objects(), objects(), mutated(), mutated(), st.none(), st.binary(max_size=8),
    st.integers(0, 200).map(lambda i: msgspec.json.encode(clean(i))),
)  # fmt: skip
DEFAULTS = st.sampled_from([*map(int, TYPES.values()), UNKNOWN_TYPE])


@settings(max_examples=300, deadline=None)
@given(st.lists(MESSAGES, max_size=8), st.sampled_from(CONFIGURATIONS), DEFAULTS)
def test_equals_the_strict_decoder_and_the_intake(messages: Messages, configuration: Configuration, kind: int) -> None:
    check(messages, configuration, kind)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(MESSAGES, st.integers(1, 3)), max_size=12), st.lists(st.integers(0, 12), max_size=3))
@example([(b'{"ts":1774785600,"item_id":"A"}', 10**15)], [0, 0])
def test_any_cut_of_any_offsets_gives_the_same(pairs: list[tuple[bytes | None, int]], cuts: list[int]) -> None:
    messages = [message for message, _ in pairs]
    offsets = np.cumsum([step for _, step in pairs]).astype(np.int64)
    rules = rules_of(PLAIN)
    decoder = FastDecoder(rules, 2, 3)
    parts = [
        quickly(decoder, messages[a:b], offsets[a:b])
        for a, b in itertools.pairwise(sorted({0, len(pairs), *(min(cut, len(pairs)) for cut in cuts)}))
    ]
    rows, codes, names, rejects, ignored = strictly(rules, 2, messages, offsets)
    assert b"".join(part[0] for part in parts) == rows
    assert b"".join(part[1] for part in parts) == codes
    assert {h: text for part in parts for h, text in part[2].items()} == names
    assert [letter for part in parts for letter in part[3]] == rejects
    assert {name: sum(part[4].get(name, 0) for part in parts) for name in ignored} == ignored


@pytest.mark.parametrize("name", sorted(VALUES))
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_field_alone(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[name], min_size=1, max_size=20))
    kinds = data.draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=len(values), max_size=len(values)))
    events = [{**GOOD, "type": kind, name: value} for kind, value in zip(kinds, values, strict=True)]
    messages: Messages = [json.dumps(event, ensure_ascii=False).encode() for event in events]
    check(messages, data.draw(st.sampled_from(CONFIGURATIONS)))


def test_what_publishers_write_takes_the_fast_path() -> None:
    events = [clean(i) for i in range(500)]
    assert check([msgspec.json.encode(event) for event in events]) == 0
    assert check([json.dumps(event).encode() for event in events]) == 0
    assert check([json.dumps(event, indent=1).encode() + b"\n" for event in events]) == 0
    assert check([msgspec.json.encode({**event, "trace": "a1", "n": 1.5, "ok": True}) for event in events]) == 0
    named = [{**event, "title": 'Käse "Brie" 1\\2 €/kg 😀\n', "channel": "Müller", "brand": "日本"} for event in events]
    assert check([msgspec.json.encode(event) for event in named]) == 0
    assert check([json.dumps(event).encode() for event in named]) == 0
    guests = [msgspec.json.encode({**event, "user_id": guest}) for event in events for guest in ("", "null", 0, None)]
    assert check(guests) == 0


def test_a_message_has_no_say_in_its_neighbours() -> None:
    good = [msgspec.json.encode(clean(i)) for i in range(6)]
    odd: Messages = [None, b"", b"oops", b'{"ts":1774785600,"item_id":"\\u00a0"}', b'{"ts":1}', good[0] + b"x"]
    mixed = [message for pair in zip(good, odd, strict=True) for message in pair]
    assert check(mixed) == len(odd)
    assert check([]) == 0 and check(odd) == len(odd)


@pytest.mark.parametrize(
    "message",
    [
        None, b"", b"\n", b"null", b'"click"', b"\xff\xfe\x00A", b"{}", b"{", b'{"ts":1774785600,"item_id":"A"',
        b'[{"ts":1774785600,"item_id":"A"}]', b'{"ts":1774785600,"item_id":"A","price":NaN}',
        b'{"ts":1774785600,"item_id":"A","price":-Infinity}', b'{"ts":1774785600,"item_id":"A","price":1e999}',
        b'{"ts":1774785600,"item_id":"A","item_id":"B"}', b'{"ts":1774785600,"item_id":"A","x":1,"x":1}',
        b'{"ts":1774785600,"item_id":"A","Item_ID":"Z"}', b'{"ts":1774785600,"item_id":"A","c":{"d":[1,{"e":1}]}}',
        b'{"ts":1774785600,"item_id":"A"}{"event_id":"h"}', b'{"ts":1774785600,"item_id":"A","x":' + b"[" * 5000,
        b'{"ts":1774785600,"item_id":"A","price":01}', b'{"ts":1774785600,"item_id":"A","price":-0}',
        b'{"ts":1774785600,"item_id":"A","price":1e3}', b'{"ts":1774785600,"item_id":"A","price":1.}',
        b'{"ts":1774785600,"item_id":"A","price":.5}', b'{"ts":1774785600,"item_id":"A","price":1.5e1}',
        b'{"ts":1774785600,"item_id":"A",}', b'{"ts":1774785600 "item_id":"A"}', b'{ts:1774785600,"item_id":"A"}',
        b"{'ts':1774785600,'item_id':'A'}", b'{"ts":1774785600,"item_id":"A","x":nul}', b"\xef\xbb\xbf{}",
        b'{"ts":1774785600,"item_id":"A","x":truefalse}', b'{"ts":1774785600,"item_id":"A","x":tru',
        b'{"ts":1774785600,"item_id":"a\tb"}', b'{"ts":1774785600,"item_id":"\xff"}', b'{"t\\u0073":1774785600}',
        b'{"ts":1774785600,"item_id":"A","item_\\u0069d":"B"}', b'{"ts":1774785600,"item_id":"\\ud800"}',
        b'{"ts":1774785600,"item_id":"A","x":"\\ud83d\\ude00"}',
        b'{"ts":1774785600,"item_id":"A","x":"\\ude00\\ud83d"}',
        b'{"ts":1774785600,"item_id":"A","x":"\\ud83dx"}',
        b'{"ts":1774785600,"item_id":"A","x":"\\u12"}',
        b'{"ts":1774785600,"item_id":"A","x":"\xed\xa0\x80"}', b'{"ts":1774785600,"item_id":"A","x":"\xc0\xaf"}',
        b'{"ts":1774785600,"item_id":"A","x":"\xf4\x90\x80\x80"}', b'{"ts":1774785600,"item_id":"A","x":"\xe2\x82"}',
        b'{"ts":1774785600,"item_id":"A","x":"\xf0\x8f\xbf\xbf"}', b'{"ts":1774785600,"item_id":"A","x":"\\v"}',
        b'{"ts":1774785600,"item_id":"A","x":"\\', b'{"ts":1774785600,"item_id":"A","x":"\\u',
        b'{"ts":1774785600,"item_id":"A","user_id":-0}', b'{"ts":1774785600,"item_id":"A","user_id":-0.0}',
        b'{"ts":1774785600,"item_id":"A","user_id":12345678901234567890}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["click", "purchase"])
def test_messages_that_parsers_disagree_about(message: bytes | None, kind: str) -> None:
    check([message, msgspec.json.encode(GOOD), message], default=int(TYPES[kind]))


def test_more_strangers_than_there_is_room_for() -> None:
    many = [msgspec.json.encode({**GOOD, f"s{i}": i, "both": 1}) for i in range(2 * STRANGERS)]
    assert check(many) == STRANGERS + 1
    assert check([msgspec.json.encode({**GOOD, **{f"k{i}": i for i in range(150)}})]) == 1
    assert check([msgspec.json.encode({**GOOD, "x" * 5000: 1}), msgspec.json.encode({**GOOD, "y": 1})]) == 1


def test_every_day_and_a_number_at_every_edge() -> None:
    days = np.arange("1999-12-25", "2100-01-10", dtype="datetime64[D]").astype(str).tolist()
    assert check([f'{{"ts":"{day}T23:59:59.999Z","item_id":"A"}}'.encode() for day in days[::3]]) < 10
    edges = [2.0**-0.75, 2.0**-0.5, 2.0**-0.25, 0.5, 1.0]
    near = [edge * 2.0**k + d * np.spacing(edge * 2.0**k) for edge in edges for k in range(-3, 4) for d in range(-3, 4)]
    check([msgspec.json.encode({**GOOD, "score": float(value)}) for value in near])
    steps = [
        f"{Decimal(edge) + d * Decimal(10) ** -places:.{places}f}"
        for edge in edges for places in (16, 17, 18) for d in range(-40, 41)
    ]  # fmt: skip
    check([f'{{"ts":1774785600,"item_id":"A","score":{text}}}'.encode() for text in steps])
    small = [f"0.{'0' * zeros}{digits}" for zeros in range(28) for digits in (1, 3, 123, 900719925474099)]
    check([f'{{"ts":1774785600,"item_id":"A","type":"item","price":{text},"score":{text}}}'.encode() for text in small])


def test_user_zero_is_nobody_where_the_configuration_says_so() -> None:
    zeros = [(name, zero) for name in ("user_id", "order_id") for zero in (0, "0")]
    messages: Messages = [msgspec.json.encode({**GOOD, name: zero}) for name, zero in zeros]
    for configuration in CONFIGURATIONS[:3]:
        assert check(messages, configuration) == 0
