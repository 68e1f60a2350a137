"""Log lines of a stage are short sentences, however many ids its record holds."""

import logging

import pytest

from cloudseg.records import IngestRecord
from cloudseg.stages import log


def test_a_big_record_is_logged_as_counts_and_first_ids(caplog: pytest.LogCaptureFixture):
    ids = [f"sc-{n:020}" for n in range(361)]
    record = IngestRecord(source="file:///a", added=ids, labelled=ids[:3], known=0, quarantined=[], seconds=1)
    with caplog.at_level(logging.INFO):
        log.ended("ingest", record)
    (line,) = caplog.records
    assert (
        line.getMessage()
        == "ingest ends: source file:///a, added 361, labelled 3, known 0, removed 0, still_quarantined 0, seconds 1"
    )
    assert line.facts["added"]["count"] == 361  # type: ignore[attr-defined]
    assert line.facts["labelled"] == ids[:3]  # type: ignore[attr-defined]
    assert record.added == ids


def test_nested_records_are_cut_too():
    assert log.brief({"ingest": {"added": list(range(9))}, "n": 1}) == {
        "ingest": {"added": {"count": 9, "first": [0, 1, 2, 3, 4]}},
        "n": 1,
    }
