"""promtool of Debian's package `prometheus`, installed or unpacked by `.ci/prometheus`."""

import os
import shutil
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[2] / ".prometheus"


def find_promtool() -> str:
    """Return the program, or skip the test."""
    program = shutil.which("promtool", path=f"{os.environ['PATH']}{os.pathsep}{UNPACKED}")
    if program is None:
        pytest.skip("no promtool: apt install prometheus")
    return program
