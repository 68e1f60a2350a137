"""Dates that cannot be true: the scene is taken, the date is not, and the row says so."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudseg.ingest.acquisition import choose_time
from tests.ingest.conftest import Service
from tests.ingest.tiles import random_dn, write

ARRIVED = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+23:59",
        "0000-01-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
    ],
)
def test_a_time_that_no_calendar_has_is_no_time(service: Service, inbox: Path, text: str) -> None:
    write(inbox / "odd.tif", random_dn(), tags={"ACQUIRED_AT": text})
    assert service.ingest(inbox).quarantined == []
    assert service.scenes()["odd"].acquired_at is None


@pytest.mark.parametrize("text", ["2999-01-01T00:00:00Z", "1972-07-22T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_is_ignored_and_the_row_says_so(service: Service, inbox: Path, text: str) -> None:
    write(inbox / "odd.tif", random_dn(), tags={"ACQUIRED_AT": text})
    assert len(service.ingest(inbox).added) == 1
    scene = service.scenes()["odd"]
    assert scene.acquired_at is None
    assert scene.tags["acquired_at_ignored"] == text


def test_a_time_that_can_be_is_taken(service: Service, inbox: Path) -> None:
    write(inbox / "good.tif", random_dn(), tags={"ACQUIRED_AT": "1972-07-23T00:00:00Z"})
    service.ingest(inbox)
    scene = service.scenes()["good"]
    assert scene.acquired_at == datetime(1972, 7, 23, tzinfo=UTC)
    assert "acquired_at_ignored" not in scene.tags


def test_the_first_time_that_can_be_is_chosen() -> None:
    future, past = ARRIVED + timedelta(days=2), ARRIVED - timedelta(days=300)
    assert choose_time((future, past), ARRIVED, "x") == (past, {"acquired_at_ignored": "2024-06-03T00:00:00Z"})
    assert choose_time((past, future), ARRIVED, "x") == (past, {})
    assert choose_time((ARRIVED + timedelta(hours=14), None), ARRIVED, "x")[0] is not None
    assert choose_time((None, None), ARRIVED, "x") == (None, {})


def test_a_palette_is_named_as_what_was_found(service: Service, inbox: Path) -> None:
    write(inbox / "colors.tif", random_dn(bands=1, low=1, high=250, dtype="uint8"), names=None, photometric="palette")
    service.ingest(inbox)
    (entry,) = service.quarantine().values()
    assert entry.found is not None
