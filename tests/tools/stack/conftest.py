"""The table that `make stack-test` prints at the end."""

from collections.abc import Callable

import pytest

_ROWS: list[tuple[str, str, str]] = []


@pytest.fixture(scope="session")
def table() -> Callable[[str, str, str], None]:
    """Return a function that adds a row: action, outcome, duration."""

    def add(what: str, outcome: str, took: str) -> None:
        _ROWS.append((what, outcome, took))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ROWS:
        return
    terminalreporter.section("the stack")
    widths = [max(len(row[column]) for row in _ROWS) for column in range(2)]
    for what, outcome, took in _ROWS:
        terminalreporter.write_line(f"{what:<{widths[0]}}  {outcome:<{widths[1]}}  {took:>8}")
