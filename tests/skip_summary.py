"""One line at the end of a test run: what was skipped, how often, and what to install to run it."""

import re
from collections import Counter
from collections.abc import Iterable

import pytest


def skip_summary(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> str:
    """Return the line for skipped tests and files, grouped by reason; empty if nothing was skipped.

    The reason "no PostGIS: apt install postgresql-postgis" becomes "91 PostGIS (apt install postgresql-postgis)".
    """
    counts = Counter(_reason(report) for report in reports)
    return (
        "skipped: " + ", ".join(f"{count} {_short(reason)}" for reason, count in counts.most_common()) if counts else ""
    )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _short(reason: str) -> str:
    what, _, remedy = reason.partition(": ")
    what = re.sub(r"^no ", "", what)
    return f"{what} ({remedy})" if remedy else what
