"""Moments and intervals that callers pass as text.

Intervals are those of STAC's parameter `datetime` and of its clients: `2024-06-01/2024-06-30`, `2024-06`,
`2024-06-01/..`.
"""

import calendar
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cloudseg.errors import InputError

_DAY = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_MICROSECOND = timedelta(microseconds=1)
_FIRST_YEAR: Final = 1970


def parse_interval(text: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last moment of an interval, both included, in UTC; None for an open end.

    A year, a month or a day means all of it, as in pystac-client; a time without a zone is UTC.

    Args:
        text: one moment, or two with `/` between them; `..` or nothing is an open end.

    Raises:
        InputError: it is none, or it ends before it begins.
    """
    first, slash, last = text.strip().partition("/")
    ends = (first, last) if slash else (first, first)
    try:
        since = None if ends[0] in ("", "..") else _span(ends[0])[0]
        until = None if ends[1] in ("", "..") else _span(ends[1])[1]
    except ValueError as error:
        raise _invalid(text) from error
    if since is None and until is None:
        raise _invalid(text)
    if since and until and since > until:
        raise InputError("the interval ends before it begins", subject="datetime", found=text[:80])
    return since, until


def parse_moment(text: str, subject: str) -> datetime:
    """Return an ISO 8601 time with zone as an aware UTC time.

    Args:
        text: such as `2026-11-22T02:00:00Z`.
        subject: name of the argument, for the error.

    Raises:
        InputError: the time cannot be read, has no zone, or is before 1970.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "not a time", subject=subject, found=text, expected="ISO 8601, such as 2026-11-22T02:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise InputError(
            "the time has no zone", subject=subject, found=text, expected="ISO 8601 with zone, such as ...Z"
        )
    if moment.year < _FIRST_YEAR:
        raise InputError("nothing was stored then", subject=subject, found=text, expected=f"a time after {_FIRST_YEAR}")
    return moment.astimezone(UTC)


def _span(text: str) -> tuple[datetime, datetime]:
    """Return the first and the last microsecond of a year, month or day, or a moment twice."""
    match = _DAY.fullmatch(text)
    if match is None:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment, moment
    year, month, day = (int(part) if part else None for part in match.groups())
    first = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
    final = datetime(first.year, month or 12, 1, tzinfo=UTC)
    last_day = day or calendar.monthrange(final.year, final.month)[1]
    return first, final.replace(day=last_day) + timedelta(days=1) - _MICROSECOND


def _invalid(text: str) -> InputError:
    return InputError(
        "not a time interval",
        subject="datetime",
        found=text[:80],
        expected="a day, month, year or time, or two of them: 2024-06, 2024-06-01/2024-06-30, 2024-06-01/..",
    )
