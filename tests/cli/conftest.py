"""The command line as tests call it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.cli import _run


@pytest.fixture
def run(runtime_env: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
