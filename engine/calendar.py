"""Instants and calendar time in the pack's time zone. An instant is a float: seconds since 1970-01-01T00:00:00Z.

INVARIANT: nothing here asks what time it is. The clock is read at the edge and passed in.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

FOREVER = float("inf")
"""The instant after all others."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INSTANT = re.compile(_DATE.pattern + r"T([01]\d|2[0-3]):\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:\d\d(:\d\d)?)", re.ASCII)


def parse_instant(text: str) -> float | None:
    """The instant of an ISO 8601 date and time with its offset, such as `2026-11-21T10:00:00+01:00`; nothing for any other text.

    A time without an offset names no instant, and a date names many: neither is guessed. Python's own reader takes more (week dates, any sign for the `T`), and
    other versions of it other things.
    """
    return _instant(text) if len(text) <= 40 else None


@lru_cache(maxsize=65536)
def _instant(text: str) -> float | None:
    """INVARIANT: only short text is remembered; what comes in from outside would fill the memory."""
    try:
        return datetime.fromisoformat(text).timestamp() if _INSTANT.fullmatch(text) else None
    except ValueError:
        return None


def parse_date(text: str) -> date | None:
    """The date of `2026-11-21`; nothing for any other text."""
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def local_instant(local: datetime, zone: str) -> float:
    """The instant of a local date and time. One that daylight saving skips moves forward; one that happens twice is the later."""
    at = local.replace(tzinfo=ZoneInfo(zone))
    return max(at.replace(fold=0).timestamp(), at.replace(fold=1).timestamp())


def start_of_day(day: date, zone: str) -> float:
    """Midnight at the start of a local day: the earlier one should daylight saving repeat it, the first instant of the day should it skip it."""
    return datetime.combine(day, time(), ZoneInfo(zone)).timestamp()


def end_of_day(day: date, zone: str) -> float:
    """The instant just after a local day, so that the whole day is included. The last day that the calendar holds, 9999-12-31, never ends."""
    return FOREVER if day == date.max else start_of_day(day + timedelta(days=1), zone)


@lru_cache(maxsize=65536)
def deadline(since: float, unit: str, amount: int, zone: str) -> float | None:
    """The instant `amount` calendar `unit`s (`days`, `months`, `years`) after `since`, at the same local time; the day is clipped to the month's last.

    Beyond what the calendar can hold there is no deadline, and the caller decides as for an absent input.
    """
    try:
        local = datetime.fromtimestamp(since, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        return local_instant(_add(local, unit, amount), zone)
    except (ValueError, OverflowError, OSError):
        return None


def _add(local: datetime, unit: str, amount: int) -> datetime:
    if unit == "days":
        return local + timedelta(days=amount)
    months = local.year * 12 + local.month - 1 + amount * (12 if unit == "years" else 1)
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return local.replace(year=year, month=month + 1, day=min(local.day, last))


def iso(instant: float, zone: str = "UTC") -> str:
    """An instant as text, with the offset of `zone`."""
    return datetime.fromtimestamp(instant, UTC).astimezone(ZoneInfo(zone)).isoformat()
