"""Instants, whole days and deadlines: what is read, what is not guessed, and the two nights a year when Paris skips an hour or has one twice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import inf, nan
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine.calendar import FOREVER, _instant, deadline, end_of_day, iso, local_instant, parse_date, parse_instant, start_of_day

PARIS = "Europe/Paris"


def paris(text: str) -> float:
    """The instant of an ISO text with its offset, by the standard library alone."""
    return datetime.fromisoformat(text).timestamp()


# --- instants ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00Z", 0.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1969-12-31T19:00:00-05:00", 0.0),
        ("1970-01-01T00:00:00-00:00", 0.0),
        ("1970-01-01T00:00:00.25Z", 0.25),
        ("1970-01-01T00:00:00,25Z", 0.25),
        ("1970-01-01T00:00:00.123456789Z", 0.123456),
        ("1970-01-01T00:09:21+00:09:21", 0.0),
        ("2026-11-21T10:00:00+01:00", 1795251600.0),
        ("2024-02-29T00:00:00Z", 1709164800.0),
        ("0001-01-01T00:00:00+14:00", -62135596800.0 - 14 * 3600),
        ("9999-12-31T23:59:59-12:00", 253402300799.0 + 12 * 3600),
    ],
)
def test_a_date_and_time_with_its_offset_is_an_instant(text, instant):
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "now", "2026-11-21", "2026-11-21T10:00:00", "2026-11-21T10:00", "2026-11-21T10Z", "2026-11-21 10:00:00Z", "2026-11-21x10:00:00Z",
        "2026-11-21t10:00:00z", "20261121T100000Z", "2026-W47-6T10:00:00Z", "2026-325T10:00:00Z", "2026-11-21T100000Z", "2026-11-21T10:00:00+0100",
        "2026-11-21T10:00:00+01", "2026-11-21T24:00:00Z", "2026-11-21T10:60:00Z", "2026-11-21T10:00:60Z", "2026-11-21T10:00:00.Z", "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z", "0000-01-01T00:00:00Z", "2026-11-21T10:00:00+25:00", " 2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z\n",
        "٢٠٢٦-11-21T10:00:00Z", "2026-11-21T10:00:00Z" + "0" * 30, "+2026-11-21T10:00:00Z", "2026-11-21T10:00:00\ud800", "1795251600",
    ],
    ids=ascii,
)  # fmt: skip
def test_anything_else_is_no_instant(text):
    assert parse_instant(text) is None


def test_long_text_is_not_remembered():
    _instant.cache_clear()
    assert parse_instant("2026-11-21T10:00:00." + "0" * 1_000_000 + "Z") is None
    assert _instant.cache_info().currsize == 0


@given(st.text(max_size=60))
def test_any_text_is_an_instant_or_none(text):
    assert isinstance(parse_instant(text), float | None)


@given(st.datetimes(timezones=st.timezones()))
def test_what_is_written_in_iso_is_read_as_the_same_instant(moment):
    offset = moment.utcoffset()
    assume(offset is not None and offset.microseconds == 0)
    assert parse_instant(moment.isoformat()) == moment.timestamp()


# --- whole days --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "2026-11-31", "2026-02-29", "26-11-21", "2026/11/21", "20261121", "2026-W47-6", "2026-325", "2026-11-21T", " 2026-11-2", "٢٠٢٦-11-21"]
)
def test_anything_but_year_month_and_day_is_no_date(text):
    assert parse_date(text) is None


def test_a_date_is_read():
    assert parse_date("2024-02-29") == date(2024, 2, 29)


@pytest.mark.parametrize(
    ("day", "start", "hours"),
    [
        ("2026-11-21", "2026-11-21T00:00:00+01:00", 24),
        ("2026-07-14", "2026-07-14T00:00:00+02:00", 24),
        ("2026-03-29", "2026-03-29T00:00:00+01:00", 23),
        ("2026-10-25", "2026-10-25T00:00:00+02:00", 25),
        ("2026-12-31", "2026-12-31T00:00:00+01:00", 24),
    ],
    ids=["winter", "summer", "spring-forward", "fall-back", "new-year"],
)
def test_a_day_starts_at_midnight_and_ends_when_the_next_one_starts(day, start, hours):
    at = date.fromisoformat(day)
    assert start_of_day(at, PARIS) == paris(start)
    assert end_of_day(at, PARIS) == start_of_day(at + timedelta(1), PARIS) == paris(start) + hours * 3600


@pytest.mark.parametrize(
    ("day", "zone", "start"),
    [
        ("2023-04-28", "Africa/Cairo", "2023-04-28T01:00:00+03:00"),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T01:00:00-02:00"),
        ("2011-12-30", "Pacific/Apia", "2011-12-31T00:00:00+14:00"),
        ("2022-11-06", "America/Havana", "2022-11-06T00:00:00-04:00"),
    ],
    ids=["midnight-skipped", "midnight-skipped-in-the-south", "day-skipped", "midnight-twice"],
)
def test_where_midnight_is_skipped_the_day_starts_late_and_where_it_comes_twice_at_the_first(day, zone, start):
    assert start_of_day(date.fromisoformat(day), zone) == paris(start)


def test_the_first_and_the_last_day_of_the_calendar_are_days():
    assert start_of_day(date.min, PARIS) < start_of_day(date(1, 1, 2), PARIS)
    assert end_of_day(date(9999, 12, 30), PARIS) == start_of_day(date.max, PARIS)
    assert end_of_day(date.max, PARIS) == FOREVER == inf


@given(st.dates(), st.sampled_from([PARIS, "UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Africa/Cairo"]))
@example(date(9999, 12, 31), "America/New_York")
@example(date(1, 1, 1), "Pacific/Auckland")
def test_days_follow_each_other_without_a_gap(day, zone):
    assert start_of_day(day, zone) < end_of_day(day, zone)
    if day != date.max:
        assert end_of_day(day, zone) == start_of_day(day + timedelta(1), zone)


# --- local times that daylight saving skips or repeats -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "instant"),
    [
        ("2026-03-29T01:59:59", "2026-03-29T01:59:59+01:00"),
        ("2026-03-29T02:00:00", "2026-03-29T03:00:00+02:00"),
        ("2026-03-29T02:30:00", "2026-03-29T03:30:00+02:00"),
        ("2026-03-29T03:00:00", "2026-03-29T03:00:00+02:00"),
        ("2026-10-25T01:59:59", "2026-10-25T01:59:59+02:00"),
        ("2026-10-25T02:00:00", "2026-10-25T02:00:00+01:00"),
        ("2026-10-25T02:30:00", "2026-10-25T02:30:00+01:00"),
        ("2026-10-25T03:00:00", "2026-10-25T03:00:00+01:00"),
    ],
)
def test_a_time_that_is_skipped_moves_forward_and_one_that_is_repeated_is_the_later(local, instant):
    assert local_instant(datetime.fromisoformat(local), PARIS) == paris(instant)


# --- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "unit", "amount", "due"),
    [
        ("2026-01-31T10:00:00+01:00", "months", 1, "2026-02-28T10:00:00+01:00"),
        ("2024-01-31T10:00:00+01:00", "months", 1, "2024-02-29T10:00:00+01:00"),
        ("2026-01-31T10:00:00+01:00", "months", 3, "2026-04-30T10:00:00+02:00"),
        ("2026-05-31T10:00:00+02:00", "months", 1, "2026-06-30T10:00:00+02:00"),
        ("2026-02-28T10:00:00+01:00", "months", 1, "2026-03-28T10:00:00+01:00"),
        ("2026-12-31T23:30:00+01:00", "months", 2, "2027-02-28T23:30:00+01:00"),
        ("2026-12-15T10:00:00+01:00", "months", 1, "2027-01-15T10:00:00+01:00"),
        ("2026-01-31T10:00:00+01:00", "months", 25, "2028-02-29T10:00:00+01:00"),
        ("2024-02-29T00:00:00+01:00", "years", 1, "2025-02-28T00:00:00+01:00"),
        ("2024-02-29T00:00:00+01:00", "years", 4, "2028-02-29T00:00:00+01:00"),
        ("2008-02-29T00:00:00+01:00", "years", 18, "2026-02-28T00:00:00+01:00"),
        ("2096-02-29T00:00:00+01:00", "years", 4, "2100-02-28T00:00:00+01:00"),
        ("2026-11-21T10:00:00+01:00", "days", 14, "2026-12-05T10:00:00+01:00"),
        ("2026-11-21T10:00:00+01:00", "days", 0, "2026-11-21T10:00:00+01:00"),
        ("2026-11-21T10:00:00+01:00", "years", 10, "2036-11-21T10:00:00+01:00"),
        ("2026-11-21T23:30:00Z", "months", 1, "2026-12-22T00:30:00+01:00"),
    ],
)
def test_a_deadline_is_at_the_same_local_time_with_the_day_clipped_to_the_month(since, unit, amount, due):
    assert deadline(paris(since), unit, amount, PARIS) == paris(due)


@pytest.mark.parametrize(
    ("since", "amount", "due"),
    [
        ("2026-03-28T10:00:00+01:00", 1, "2026-03-29T10:00:00+02:00"),
        ("2026-03-28T02:30:00+01:00", 1, "2026-03-29T03:30:00+02:00"),
        ("2026-03-28T02:30:00+01:00", 2, "2026-03-30T02:30:00+02:00"),
        ("2026-10-24T02:30:00+02:00", 1, "2026-10-25T02:30:00+01:00"),
        ("2026-10-25T02:30:00+02:00", 1, "2026-10-26T02:30:00+01:00"),
        ("2026-10-25T02:30:00+02:00", 0, "2026-10-25T02:30:00+01:00"),
        ("2026-03-20T10:00:00+01:00", 14, "2026-04-03T10:00:00+02:00"),
    ],
    ids=["a-day-of-23-hours", "into-the-gap", "over-the-gap", "into-the-overlap", "out-of-the-overlap", "within-the-overlap", "14-days-over-the-gap"],
)
def test_days_are_days_of_the_calendar_not_24_hours(since, amount, due):
    assert deadline(paris(since), "days", amount, PARIS) == paris(due)


@pytest.mark.parametrize(
    ("since", "unit", "amount"),
    [
        (0.0, "years", 8030),
        (0.0, "months", 8030 * 12),
        (0.0, "days", 3_000_000),
        (0.0, "days", 10**30),
        (0.0, "months", 10**30),
        (0.0, "years", 10**30),
        (1e18, "days", 1),
        (-1e18, "days", 1),
        (inf, "days", 1),
        (-inf, "days", 1),
        (nan, "days", 1),
        (253402300799.0, "days", 0),
        (-62135596800.0 - 1, "days", 0),
    ],
)
def test_beyond_the_calendar_there_is_no_deadline(since, unit, amount):
    assert deadline(since, unit, amount, PARIS) is None


def test_far_dates_within_the_calendar_have_deadlines():
    assert deadline(0.0, "years", 8029, "UTC") == paris("9999-01-01T00:00:00Z")
    assert deadline(paris("0001-02-01T00:00:00Z"), "months", 1, "UTC") == paris("0001-03-01T00:00:00Z")
    assert deadline(paris("1900-01-01T12:00:00Z"), "years", 126, PARIS) is not None


instants = st.integers(-62_000_000_000, 253_000_000_000).map(float)
units = st.sampled_from(["days", "months", "years"])


@given(instants, units, st.integers(0, 500), st.sampled_from([PARIS, "UTC", "America/Sao_Paulo"]))
def test_more_of_a_unit_is_never_earlier_and_never_before_its_start(since, unit, amount, zone):
    first, second = deadline(since, unit, amount, zone), deadline(since, unit, amount + 1, zone)
    if first is not None:
        assert first >= since
    if first is not None and second is not None:
        assert first < second


@given(instants, units, st.integers(0, 120))
def test_a_deadline_in_utc_is_the_same_time_of_day(since, unit, amount):
    due = deadline(since, unit, amount, "UTC")
    if due is not None:
        started, ended = (datetime.fromtimestamp(one, UTC) for one in (since, due))
        assert started.time() == ended.time()
        assert ended.day <= started.day or unit == "days"


@given(st.floats(allow_nan=True), units, st.integers(-(10**12), 10**12))
def test_a_deadline_never_raises(since, unit, amount):
    assert isinstance(deadline(since, unit, amount, PARIS), float | None)


def test_an_instant_is_written_with_the_offset_of_its_zone():
    assert iso(1795251600.0) == "2026-11-21T09:00:00+00:00"
    assert iso(1795251600.5, PARIS) == "2026-11-21T10:00:00.500000+01:00"
    assert ZoneInfo(PARIS).utcoffset(datetime(2026, 7, 1)) == timedelta(hours=2)
