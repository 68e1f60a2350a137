"""Read a moment that a caller passes as text."""

from datetime import UTC, datetime
from typing import Final

from cloudseg.errors import InputError

_FIRST_YEAR: Final = 1970


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
