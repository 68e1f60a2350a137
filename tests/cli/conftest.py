"""Run the command line in the test process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.cli import _run


@pytest.fixture
def run(runtime_env: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command and returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
