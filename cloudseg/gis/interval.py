"""Time intervals as STAC API and its clients write them: `2024-06-01/2024-06-30`, `2024-06`, `2024-06-01/..`."""

import calendar
import re
from datetime import UTC, datetime, timedelta

from cloudseg.errors import InputError

_DAY = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_MICROSECOND = timedelta(microseconds=1)


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
    if (since is None and until is None) or (since and until and since > until):
        raise _invalid(text)
    return since, until


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
        found=text,
        expected="a day, month, year or time, or two of them: 2024-06, 2024-06-01/2024-06-30, 2024-06-01/..",
    )
