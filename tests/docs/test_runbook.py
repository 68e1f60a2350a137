"""The runbook has one section for each alert, under its name, with its severity and the first three commands."""

import re
from pathlib import Path

import pytest

from cloudseg.monitor.alerts import ALERTS, AlertKind

RUNBOOK = Path(__file__).parents[2] / "docs" / "how-to" / "runbook.md"


def _sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", RUNBOOK.read_text("utf-8"), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_alert_has_its_section_in_the_order_of_the_code() -> None:
    assert list(_sections()) == list(ALERTS)


@pytest.mark.parametrize("kind", ALERTS.values(), ids=lambda kind: kind.name)
def test_a_section_says_how_severe_it_is_how_long_it_may_last_and_what_to_type(kind: AlertKind) -> None:
    section = _sections()[kind.name]
    assert section.strip().lower().startswith(f"**{kind.severity}")
    assert ("may last" in section.lower()) == (kind.severity != "info")
    (commands,) = re.findall(r"```\n(.*?)```", section, flags=re.S)
    assert len(commands.strip().splitlines()) == 3
