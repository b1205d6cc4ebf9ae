"""Reading times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams.configuration import ConfigurationError, from_builtins
from thalweg.streams.event import EARLIEST, LATEST
from thalweg.streams.instant import OUTSIDE, from_float, from_integer, from_text, zone_of

PLAUSIBLE = st.integers(EARLIEST, LATEST - 1)


@given(PLAUSIBLE)
def test_every_plausible_instant_in_every_unit(ms: int) -> None:
    assert from_integer(ms // 1000) == ms // 1000 * 1000
    assert from_integer(ms) == from_integer(ms * 1000) == from_integer(ms * 1_000_000) == ms
    assert from_text(str(ms)) == from_float(float(ms)) == from_float(ms / 1000) == ms


@given(PLAUSIBLE)
def test_a_wrong_unit_is_never_plausible(ms: int) -> None:
    values = {"s": ms // 1000, "ms": ms, "us": ms * 1000, "ns": ms * 1_000_000}
    for unit, value in values.items():
        for other in values:
            if other != unit:
                assert not EARLIEST <= from_integer(value, other) < LATEST


@given(PLAUSIBLE, st.integers(-23 * 60, 23 * 60), st.integers(0, 9))
def test_text_of_an_instant_at_any_offset(ms: int, minutes: int, digits: int) -> None:
    offset = timedelta(minutes=minutes)
    moment = datetime(1970, 1, 1) + timedelta(milliseconds=ms) + offset
    sign = "-" if minutes < 0 else "+"
    fraction = f"{ms % 1000:03d}000000"[:digits]
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if digits else "")
    text += f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    assert from_text(text) == ms - ms % 1000 + int(fraction.ljust(3, "0")[:3] if digits else 0)


@given(
    st.integers(946_684_800, 2_000_000_000),
    st.sampled_from(["America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
def test_local_text_of_an_instant_reads_back_as_it_or_as_the_earlier_of_two(seconds: int, name: str) -> None:
    zone = ZoneInfo(name)
    local = datetime.fromtimestamp(seconds, zone)
    found = from_text(local.strftime("%Y-%m-%d %H:%M:%S"), zone=zone)
    assert found == (seconds - (3600 if name != "Australia/Lord_Howe" else 1800) * local.fold) * 1000


@given(st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    assert isinstance(from_text(text), int)


@pytest.mark.parametrize(
    "text", ["2026-03-29", "12:00", "2026-03-29T12", "2026-03-29T12:00.5Z", "20260329T120000Z", "1e", "--1"]
)
def test_what_is_no_time(text: str) -> None:
    assert from_text(text) == OUTSIDE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_floats_that_are_no_time(value: float) -> None:
    assert from_float(value) == OUTSIDE
    assert from_integer(2**63) == OUTSIDE


def test_a_float_keeps_its_milliseconds() -> None:
    assert [from_float(1774785600 + i / 1000) for i in range(1000)] == [1774785600000 + i for i in range(1000)]


def test_zones() -> None:
    assert zone_of(from_builtins({"time": {"zone": "utc"}}).time) is UTC
    with pytest.raises(ConfigurationError, match="time.zone 'Mars/Olympus' is no time zone"):
        zone_of(from_builtins({"time": {"zone": "Mars/Olympus"}}).time)
