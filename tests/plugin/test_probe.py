"""The check behind the banners: whatever it ends with, the next one is made."""

import pytest
from cloudseg_ui.probe import UNKNOWN, Probe

from cloudseg.runtime import Runtime


def test_a_check_that_fails_unexpectedly_is_said_and_made_again(
    filled: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Runtime] = []

    def open_runtime() -> Runtime:
        opened.append(filled)
        if len(opened) == 1:
            raise RuntimeError("nobody expected this")
        return filled

    probe = Probe(open_runtime, fresh_s=0, wait_s=60)
    assert probe.banners() == [UNKNOWN]
    assert "nobody expected this" in caplog.text
    probe.banners()
    assert len(opened) == 2
