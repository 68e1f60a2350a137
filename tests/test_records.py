"""Records are frozen and strict, and can be serialized as JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from cloudseg.records import Quarantined, Record, StoredObject, utc_iso


class WithBytes(Record):
    footprint_wkb: bytes | None
    at: datetime


def test_geometry_and_time_round_trip_through_json():
    record = WithBytes(footprint_wkb=b"\x01\xff\x00\x80", at=datetime(2024, 6, 1, 10, 30, tzinfo=UTC))
    plain = record.as_json()
    assert plain == {"footprint_wkb": "01ff0080", "at": "2024-06-01T10:30:00Z"}
    assert WithBytes.model_validate_json(json.dumps(plain)) == record


def test_records_are_frozen_and_forbid_extra_fields():
    stored = StoredObject(key="a", sha256="b", size=1)
    with pytest.raises(ValidationError, match="frozen"):
        stored.size = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        StoredObject.model_validate({"key": "a", "sha256": "b", "size": 1, "color": "red"})


def test_times_need_a_zone():
    with pytest.raises(ValidationError, match="created_at"):
        Quarantined(
            quarantine_id="q",
            name="n",
            source_uri="u",
            source_sha256="s",
            error="e",
            what="w",
            found=None,
            expected=None,
            next_step="",
            created_at=datetime(2024, 1, 1),  # noqa: DTZ001
        )


def test_utc_iso_ends_in_z():
    assert utc_iso(datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))) == "2024-06-01T10:00:00Z"
