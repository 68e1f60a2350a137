"""Intervals as STAC clients write them."""

from datetime import UTC, datetime

import pytest

from cloudseg.catalog.times import parse_interval
from cloudseg.errors import InputError


def end_of(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, 23, 59, 59, 999999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2024", datetime(2024, 1, 1, tzinfo=UTC), end_of(2024, 12, 31)),
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC), end_of(2024, 2, 29)),
        ("2024-12-31", datetime(2024, 12, 31, tzinfo=UTC), end_of(2024, 12, 31)),
        ("2024-06-01/2024-06-30", datetime(2024, 6, 1, tzinfo=UTC), end_of(2024, 6, 30)),
        ("2024-06-01T12:00:00Z/..", datetime(2024, 6, 1, 12, tzinfo=UTC), None),
        ("/2024-06", None, end_of(2024, 6, 30)),
        ("2024-06-01T12:00:00+02:00", datetime(2024, 6, 1, 10, tzinfo=UTC), datetime(2024, 6, 1, 10, tzinfo=UTC)),
    ],
)
def test_intervals(text: str, since: datetime | None, until: datetime | None):
    assert parse_interval(text) == (since, until)


def test_an_interval_that_ends_before_it_begins():
    with pytest.raises(InputError, match="ends before it begins"):
        parse_interval("2024-07/2024-06")


@pytest.mark.parametrize("text", ["", "..", "../..", "June", "2024-13", "2024-06-31", "2024/2025/2026"])
def test_no_intervals(text: str):
    with pytest.raises(InputError, match="not a time interval"):
        parse_interval(text)
