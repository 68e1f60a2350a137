"""Skipped tests are summarized by reason in one line."""

import pytest

from tests.skip_summary import skip_summary


def skipped(reason: str) -> pytest.TestReport:
    return pytest.TestReport("t", ("t.py", 1, "t"), {}, "skipped", ("conftest.py", 3, f"Skipped: {reason}"), "setup")


def test_reasons_are_grouped_and_counted():
    reports = [skipped("no GPU"), *[skipped("no PostGIS: apt install postgresql-postgis")] * 2]
    assert skip_summary(reports) == "skipped: 2 PostGIS (apt install postgresql-postgis), 1 GPU"


def test_without_skips_there_is_no_line():
    assert skip_summary([]) == ""
